//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"penstock/examples/vad/speech"
)

// keep is how many samples of the frame before the model wants in front of each frame.
const keep = 64

// model is Silero's model, version 5. Several requests can use it at the same time.
type model struct{ session *ort.DynamicAdvancedSession }

// load opens ONNX Runtime's library and the model. threads may be empty, which means one.
func load(library, path, threads string) (*model, error) {
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(); err != nil {
		return nil, fmt.Errorf("ORT_LIBRARY: load %q: %w", library, err)
	}
	n := 1
	if threads != "" {
		var err error
		if n, err = strconv.Atoi(threads); err != nil || n < 1 {
			return nil, fmt.Errorf("OMP_NUM_THREADS: want a number from 1, got %q", threads)
		}
	}
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	if err := errors.Join(options.SetIntraOpNumThreads(n), options.SetInterOpNumThreads(1)); err != nil {
		return nil, err
	}
	session, err := ort.NewDynamicAdvancedSession(path, []string{"input", "state", "sr"}, []string{"output", "stateN"}, options)
	if err != nil {
		return nil, fmt.Errorf("MODEL_PATH: load %q: %w", path, err)
	}
	return &model{session}, nil
}

func (m *model) close() error {
	return errors.Join(m.session.Destroy(), ort.DestroyEnvironment())
}

// judge returns for each frame of sound the probability that somebody speaks in it. The last frame is filled up with silence.
func (m *model) judge(ctx context.Context, sound []float32) (probabilities []float32, err error) {
	var values []ort.Value
	defer func() {
		for _, v := range values {
			err = errors.Join(err, v.Destroy())
		}
	}()
	floats := func(shape ...int64) *ort.Tensor[float32] {
		v, bad := ort.NewEmptyTensor[float32](shape)
		if bad != nil {
			err = errors.Join(err, bad)
			return nil
		}
		values = append(values, v)
		return v
	}
	input, state, output, next := floats(1, keep+speech.Frame), floats(2, 1, 128), floats(1, 1), floats(2, 1, 128)
	rate, bad := ort.NewTensor(ort.NewShape(1), []int64{speech.Rate})
	if err = errors.Join(err, bad); err != nil {
		return nil, err
	}
	values = append(values, rate)
	for at := 0; at < len(sound) && ctx.Err() == nil; at += speech.Frame {
		window := input.GetData()
		copy(window, window[speech.Frame:]) // the end of the frame before
		n := copy(window[keep:], sound[at:])
		clear(window[keep+n:])
		if err := m.session.Run([]ort.Value{input, state, rate}, []ort.Value{output, next}); err != nil {
			return nil, err
		}
		probabilities = append(probabilities, output.GetData()[0])
		copy(state.GetData(), next.GetData())
	}
	return probabilities, ctx.Err()
}
