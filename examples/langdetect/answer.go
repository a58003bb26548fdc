package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// requestError is an error that is sent to the client: a fault of the request, or why it cannot be served now.
type requestError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"` // for programs; never changes
	Message string `json:"message"`
}

func (e *requestError) Error() string { return e.Message }

func invalid(code, format string, args ...any) error {
	return &requestError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

// writeError turns an error into a response. All errors are sent by it.
func writeError(w http.ResponseWriter, err error) {
	fault, ok := errors.AsType[*requestError](err)
	if !ok {
		fault = &requestError{http.StatusInternalServerError, "internal", err.Error()}
	}
	writeJSON(w, fault.Status, map[string]*requestError{"error": fault})
}

// writeJSON sends a response. It ignores the error of Encode, because a client that has disconnected cannot be notified.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// only responds 405 to every other method.
func only(h http.HandlerFunc, methods ...string) http.Handler {
	allowed := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", allowed)
			writeError(w, &requestError{http.StatusMethodNotAllowed, "method_not_allowed", fmt.Sprintf("%s: want %s, got %s", r.URL.Path, allowed, r.Method)})
			return
		}
		h(w, r)
	})
}

// retryAfter tells a client when to come back: whole seconds, from one to a minute.
func retryAfter(w http.ResponseWriter, left time.Duration) {
	s := int(math.Ceil(left.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(min(max(s, 1), 60)))
}

// seconds and millis round to three decimal places, for people.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e3) / 1e3 }
func millis(d time.Duration) float64  { return math.Round(d.Seconds()*1e6) / 1e3 }
