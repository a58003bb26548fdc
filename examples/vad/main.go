//go:build cgo

// Vad serves Silero's voice activity detection, an ONNX model, with ONNX Runtime: POST /speech takes a WAV file and answers when
// somebody speaks in it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"penstock/examples/vad/speech"
)

// soundLimit is the largest WAV file: ten minutes at the model's rate.
const soundLimit = 10 * 60 * speech.Rate * 2

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Getenv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vad:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then finishes the requests in flight.
func run(ctx context.Context, getenv func(string) string) (err error) {
	begin := time.Now()
	m, err := load(getenv("ORT_LIBRARY"), getenv("MODEL_PATH"), getenv("OMP_NUM_THREADS"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+getenv("PORT"))
	if err != nil {
		return fmt.Errorf("PORT: %w", err)
	}
	fmt.Printf("model loaded in %s, listening on %s\n", time.Since(begin).Round(time.Millisecond), ln.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /speech", m.answer)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, done := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer done()
	err = s.Shutdown(drain)
	if bad := <-served; !errors.Is(bad, http.ErrServerClosed) {
		err = errors.Join(err, bad)
	}
	return err
}

type answer struct {
	Seconds float64          `json:"seconds"`
	Speech  []speech.Segment `json:"speech"`
	Millis  float64          `json:"millis"`
}

func (m *model) answer(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, soundLimit))
	if err != nil {
		status := http.StatusBadRequest
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	sound, err := speech.Decode(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	probabilities, err := m.judge(r.Context(), sound)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer{ // a client that left needs no answer
		Seconds: float64(len(sound)) / speech.Rate, Speech: speech.Segments(probabilities),
		Millis: float64(time.Since(begin).Microseconds()) / 1000,
	})
}
