package speech_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"penstock/examples/vad/speech"
)

// wav makes a WAV file with a chunk of text before its samples.
func wav(rate, channels int, samples ...int16) []byte {
	b := []byte("RIFF\x00\x00\x00\x00WAVELIST\x03\x00\x00\x00abc\x00fmt \x10\x00\x00\x00\x01\x00")
	b = binary.LittleEndian.AppendUint16(b, uint16(channels))
	b = binary.LittleEndian.AppendUint32(b, uint32(rate))
	b = append(b, 0, 0, 0, 0, 0, 0, 16, 0)
	b = append(b, "data"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(2*len(samples)))
	for _, s := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(s))
	}
	return b
}

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		file []byte
		want []float32
		err  string
	}{
		"as the model wants it":         {wav(16000, 1, 1<<14, -1<<15), []float32{0.5, -1}, ""},
		"three times the rate":          {wav(48000, 1, 0, 1<<14, 1<<15-1<<14, 9), []float32{1. / 3}, ""},
		"the first of two channels":     {wav(16000, 2, 1<<14, 7, 0, 7), []float32{0.5, 0}, ""},
		"a rate that cannot be divided": {wav(44100, 1, 1), nil, "got 44100"},
		"no channel":                    {wav(16000, 0, 1), nil, "at least one channel"},
		"no sound":                      {wav(16000, 1)[:50], nil, "data chunk"},
		"another file":                  {[]byte("ID3"), nil, "want a WAV file"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			got, err := speech.Decode(tt.file)
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
				t.Errorf("got %v, %v, want %v, %s", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestSegments(t *testing.T) {
	const second = speech.Rate / speech.Frame // frames, rounded down
	frames := make([]float32, 4*second)
	for i := second; i < 2*second; i++ {
		frames[i] = 0.9
	}
	frames[second+5], frames[second+6] = 0, 0 // a short pause is part of the speech
	frames[len(frames)-1] = 0.6
	got := speech.Segments(frames)
	at := func(frame int) float64 { return float64(frame) * speech.Frame / speech.Rate }
	want := []speech.Segment{{Start: at(second), End: at(2 * second)}, {Start: at(len(frames) - 1), End: at(len(frames))}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := speech.Segments(make([]float32, 10)); len(got) != 0 {
		t.Errorf("silence: got %v, want none", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(wav(16000, 1, 1, 2, 3))
	f.Add(wav(48000, 2, 1, 2, 3))
	f.Fuzz(func(t *testing.T, file []byte) {
		if got, err := speech.Decode(file); err == nil && len(got) > len(file)/2 {
			t.Errorf("%d samples of %d bytes", len(got), len(file))
		}
	})
}
