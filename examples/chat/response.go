package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"
)

// handler responds to a request or returns an error, which serve turns into a response.
type handler func(w *response, r *http.Request) error

// statusClientLeft is the logged status of a request whose client disconnected before the response, as in nginx.
const statusClientLeft = 499

// serve wraps h: it hangs while the server hangs, checks the method ("" for any; HEAD comes with GET), answers with the error
// of h, and writes one line for each request. Probes and scrapes come every few seconds for ever, so theirs are debug lines.
func (s *server) serve(method string, h handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w := &response{ResponseWriter: rw}
		w.Header().Set("X-Simulator", "penstock-chat; no model answers here")
		level := slog.LevelInfo
		if r.URL.Path == "/health" || r.URL.Path == "/metrics" {
			level = slog.LevelDebug
		}
		defer func() {
			s.counts.request(w.status)
			s.log.With(w.notes...).Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "status", w.status,
				"request_bytes", r.ContentLength, "response_bytes", w.bytes, "millis", rounded(time.Since(start).Seconds()*1e3))
		}()
		err := s.faults.wait(r.Context())
		if err == nil && method != "" && r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
			w.Header().Set("Allow", method)
			err = &apiError{Status: http.StatusMethodNotAllowed, Type: invalidRequest, Code: "method_not_allowed",
				Message: fmt.Sprintf("%s: want %s, got %s", r.URL.Path, method, r.Method)}
		}
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			w.fail(r, err)
		}
	})
}

// response keeps what the log says about a response.
type response struct {
	http.ResponseWriter
	status int // 0 until the head is written
	bytes  int
	notes  []any // more attributes of the line
}

func (w *response) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach what it needs.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// note adds attributes to the request's line in the log.
func (w *response) note(args ...any) { w.notes = append(w.notes, args...) }

func (w *response) json(status int, v any) error {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// fail turns an error into a response. It sends none if the client has disconnected or already has part of a response.
func (w *response) fail(r *http.Request, err error) {
	if w.status != 0 || r.Context().Err() != nil {
		w.note("cut_short", err.Error())
		if w.status == 0 {
			w.status = statusClientLeft
		}
		return
	}
	fault, ok := errors.AsType[*apiError](err)
	if !ok {
		fault = &apiError{Status: http.StatusInternalServerError, Type: "server_error", Code: "internal_error", Message: err.Error()}
	}
	if err := w.json(fault.Status, map[string]*apiError{"error": fault}); err != nil {
		w.note("cut_short", err.Error())
	}
}

// retryAfter tells a client when to come back.
func (w *response) retryAfter(d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
}

// rounded rounds to three decimal places, for people.
func rounded(f float64) float64 { return math.Round(f*1e3) / 1e3 }
