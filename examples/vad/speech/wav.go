// Package speech reads sound and turns the model's probabilities into segments of speech.
package speech

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Rate is the number of samples per second that the model expects.
const Rate = 16000

// Decode reads a WAV file of 16-bit samples (soundfile.sapp.org/doc/WaveFormat) and returns its first channel at Rate. Its rate
// must be a multiple of Rate; samples are averaged.
func Decode(file []byte) ([]float32, error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WAVE" {
		return nil, errors.New("want a WAV file, which begins with RIFF....WAVE")
	}
	var channels, step int
	for rest := file[12:]; len(rest) >= 8; {
		kind, size := string(rest[:4]), int64(binary.LittleEndian.Uint32(rest[4:]))
		body := rest[8:]
		if size > int64(len(body)) { // programs that stream do not know the size
			size = int64(len(body))
		}
		switch body = body[:size]; kind {
		case "fmt ":
			if len(body) < 16 {
				return nil, fmt.Errorf("fmt: want at least 16 bytes, got %d", len(body))
			}
			format, bits := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[14:])
			if format != 1 || bits != 16 {
				return nil, fmt.Errorf("fmt: want format 1 (PCM) with 16 bits, got format %d with %d bits", format, bits)
			}
			rate := int(binary.LittleEndian.Uint32(body[4:]))
			if channels = int(binary.LittleEndian.Uint16(body[2:])); channels == 0 {
				return nil, errors.New("fmt: want at least one channel, got 0")
			}
			if step = rate / Rate; step == 0 || rate%Rate != 0 {
				return nil, fmt.Errorf("fmt: want a rate of 16000, 32000, 48000 or another multiple of 16000, got %d", rate)
			}
		case "data":
			if channels == 0 {
				return nil, errors.New("want fmt before data")
			}
			return samples(body, channels, step), nil
		}
		next := 8 + size + size%2 // chunks begin at even offsets
		if next > int64(len(rest)) {
			break
		}
		rest = rest[next:]
	}
	return nil, errors.New("want a data chunk, found none")
}

func samples(body []byte, channels, step int) []float32 {
	frame := 2 * channels
	out := make([]float32, len(body)/(frame*step))
	for i := range out {
		var sum float32
		for k := range step {
			sum += float32(int16(binary.LittleEndian.Uint16(body[(i*step+k)*frame:])))
		}
		out[i] = sum / float32(step) / (1 << 15)
	}
	return out
}
