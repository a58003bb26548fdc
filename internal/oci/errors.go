package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"
)

// ErrNotFound means that the server's store does not have an image.
var ErrNotFound = errors.New("image not found")

// ErrPlatform means that an image is for another operating system or processor than this machine's.
var ErrPlatform = errors.New("image is for another platform")

// notFoundError is an error with a message that wraps ErrNotFound.
type notFoundError string

func (e notFoundError) Error() string        { return string(e) }
func (e notFoundError) Is(target error) bool { return target == ErrNotFound }

// platformError is an error with a message that wraps ErrPlatform.
type platformError string

func (e platformError) Error() string        { return string(e) }
func (e platformError) Is(target error) bool { return target == ErrPlatform }

// protocolError is a registry error with a code of the OCI distribution specification 1.1, "Error Codes". The code
// UNKNOWN, for errors of the server, comes from the distribution project.
type protocolError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	cause   error
}

func (e *protocolError) Error() string { return e.Code + ": " + e.Message }
func (e *protocolError) Unwrap() error { return e.cause }

func refuse(status int, code, format string, args ...any) *protocolError {
	return &protocolError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// fault converts err to a registry error. It returns err if it has a code, and otherwise maps the errors of containerd
// and the operating system.
func fault(err error) *protocolError {
	if known, ok := errors.AsType[*protocolError](err); ok {
		return known
	}
	answer := &protocolError{Status: http.StatusInternalServerError, Code: "UNKNOWN", Message: err.Error(), cause: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		answer.Status = http.StatusInsufficientStorage
		answer.Message = "the server's disk is full: " + err.Error()
	case errdefs.IsUnavailable(err):
		answer.Status = http.StatusServiceUnavailable
	}
	return answer
}

// cutShort returns the error for a body that could not be read to its end. Usually the client has left by then.
func cutShort(err error) *protocolError {
	answer := refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the body was cut short: %v", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		answer = refuse(http.StatusRequestTimeout, "BLOB_UPLOAD_INVALID", "no data came for %v", idleLimit)
	}
	answer.cause = err
	return answer
}

func (e *protocolError) write(w http.ResponseWriter) {
	body, err := json.Marshal(map[string][]*protocolError{"errors": {e}})
	if err != nil { // cannot happen, because there are only strings
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // fails only if the client has left
}
