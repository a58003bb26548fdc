package speech

const (
	// Frame is how many samples the model judges at a time: 32 ms.
	Frame = 512
	// begin and end are the probabilities at which speech begins and ends; silence must last quiet frames. These are the defaults of
	// silero-vad (github.com/snakers4/silero-vad, get_speech_timestamps).
	begin, end = 0.5, 0.35
	quiet      = 4
)

// Segment is a stretch of speech, in seconds.
type Segment struct {
	Start float64 `json:"start"`
	End   float64 `json:"end"`
}

// Segments turns the probabilities of frames into segments of speech.
func Segments(probabilities []float32) []Segment {
	found := []Segment{}
	at := func(frame int) float64 { return float64(frame) * Frame / Rate }
	from, below := -1, 0
	for i, p := range probabilities {
		switch {
		case from < 0 && p >= begin:
			from, below = i, 0
		case from >= 0 && p < end:
			if below++; below == quiet {
				found, from = append(found, Segment{at(from), at(i + 1 - quiet)}), -1
			}
		case p >= end:
			below = 0
		}
	}
	if from >= 0 {
		found = append(found, Segment{at(from), at(len(probabilities) - below)})
	}
	return found
}
