package main

import (
	"log/slog"
	"net/http"
	"time"
)

// recordAccess logs one line per request. Probes come every few seconds, so theirs are debug lines.
func recordAccess(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		level := slog.LevelInfo
		if r.URL.Path == "/health" || r.URL.Path == "/ready" {
			level = slog.LevelDebug
		}
		defer func() {
			log.Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "status", rec.status,
				"request_bytes", r.ContentLength, "response_bytes", rec.bytes, "millis", millis(time.Since(start)))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder keeps what the log line says about the response.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach what it needs.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
