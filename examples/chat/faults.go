package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// faults holds the faults that clients have requested.
type faults struct {
	crashed chan int // gets the exit code

	mu   sync.Mutex
	hung bool
	end  time.Time // end of the hang; zero for never
}

func newFaults() *faults { return &faults{crashed: make(chan int, 1)} }

// crashError ends the process with the requested exit code, without draining.
type crashError struct{ code int }

func (e *crashError) Error() string { return fmt.Sprintf("crash on demand with exit code %d", e.code) }

// wait returns at once unless the server hangs. Then it returns when the hang is over, or with the reason why ctx ended.
func (f *faults) wait(ctx context.Context) error {
	for {
		hung, end := f.state()
		switch {
		case !hung:
			return nil
		case end.IsZero():
			<-ctx.Done()
			return context.Cause(ctx)
		case !sleepUntil(ctx, end):
			return context.Cause(ctx)
		}
	}
}

func (f *faults) state() (hung bool, end time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hung && !f.end.IsZero() && !time.Now().Before(f.end) {
		f.hung = false
	}
	return f.hung, f.end
}

// hangFor makes everything wait for d, or for ever if d is 0.
func (f *faults) hangFor(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hung, f.end = true, time.Time{}
	if d > 0 {
		f.end = time.Now().Add(d)
	}
}

// crash handles POST /debug/crash {"code": 1}: the process ends at once, even with requests in flight.
func (s *server) crash(w *response, r *http.Request) error {
	body := struct {
		Code int `json:"code"`
	}{Code: 1}
	if err := s.readFault(w, r, &body); err != nil {
		return err
	}
	if body.Code < 0 || body.Code > 255 {
		return invalid("code", "invalid_value", "code: want an exit code from 0 to 255, got %d", body.Code)
	}
	if err := w.json(http.StatusAccepted, map[string]int{"crashing_with_code": body.Code}); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	select {
	case s.faults.crashed <- body.Code:
	default: // it is already crashing
	}
	return nil
}

// maxHang is the longest hang that fits in a time.Duration.
const maxHang = 24 * 60 * 60

// hang handles POST /debug/hang {"seconds": 10}. Its response is the last until the time is over (without seconds: for ever).
// The port stays open and the kernel keeps accepting connections, as in a process that really hangs.
func (s *server) hang(w *response, r *http.Request) error {
	var body struct {
		Seconds float64 `json:"seconds"`
	}
	if err := s.readFault(w, r, &body); err != nil {
		return err
	}
	if body.Seconds < 0 || body.Seconds > maxHang {
		return invalid("seconds", "invalid_value", "seconds: want 0 (for ever) to %d, got %g", maxHang, body.Seconds)
	}
	s.faults.hangFor(time.Duration(body.Seconds * float64(time.Second)))
	s.log.Warn("hanging on demand: nothing is answered, /health neither", "seconds", body.Seconds)
	return w.json(http.StatusAccepted, map[string]float64{"hanging_for_seconds": body.Seconds})
}

// readFault reads an optional JSON body, if faults are allowed.
func (s *server) readFault(w *response, r *http.Request, v any) error {
	if s.cfg.Faults == off {
		return &apiError{Status: http.StatusNotFound, Type: invalidRequest, Code: "faults_off",
			Message: fmt.Sprintf("%s: faults are off; start the server with FAULTS=on", r.URL.Path)}
	}
	body, err := readBody(w, r)
	if err != nil || len(body) == 0 {
		return err
	}
	return decode(body, v)
}
