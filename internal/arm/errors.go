package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"penstock/internal/resource"
)

// apiError is an error with the status and code of its answer.
type apiError struct {
	status  int
	code    string
	message string
	allow   []string // the allowed methods, with status 405
}

func (e *apiError) Error() string { return e.message }

func refuse(status int, code, format string, args ...any) error {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// notFound returns Azure Resource Manager's error for a resource that does not exist.
func notFound(id resource.ID) error {
	return refuse(http.StatusNotFound, "ResourceNotFound",
		"The Resource '%s/%s' under resource group '%s' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
		id.Type, id.Name, id.Group)
}

// problem is an error on the wire.
type problem struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Target  string    `json:"target,omitempty"`
	Details []problem `json:"details,omitempty"`
}

// envelope is the body of an error. Resource providers write the problem twice, Azure Resource Manager once.
type envelope struct {
	Error   problem `json:"error"`
	Code    string  `json:"code,omitempty"`
	Message string  `json:"message,omitempty"`
}

func envelopeOf(p problem, provider bool) envelope {
	e := envelope{Error: p}
	if provider {
		e.Code, e.Message = p.Code, p.Message
	}
	return e
}

// fail answers with an error. It is the only place that turns an error into an answer.
func (c *call) fail(err error) {
	if c.r.Context().Err() != nil {
		// The client has left and reads no answer, or the server is stopping.
		c.answer(http.StatusServiceUnavailable, envelopeOf(problem{Code: "ServiceUnavailable", Message: "The server stops; try again in a moment."}, true))
		return
	}
	if invalid, ok := errors.AsType[*resource.InvalidError](err); ok {
		c.answer(http.StatusBadRequest, envelopeOf(problemOf(invalid), true))
		return
	}
	if refused, ok := errors.AsType[*apiError](err); ok {
		if len(refused.allow) > 0 {
			c.w.Header().Set("Allow", strings.Join(refused.allow, ", "))
		}
		provider := refused.status != http.StatusNotFound && c.w.Header().Get("api-supported-versions") != ""
		if !provider {
			c.w.Header().Del("api-supported-versions")
		}
		c.answer(refused.status, envelopeOf(problem{Code: refused.code, Message: refused.message}, provider))
		return
	}
	c.Log.Error("api request failed", "method", c.r.Method, "path", c.r.URL.Path, "request", c.w.Header().Get("x-ms-request-id"), "err", err)
	c.answer(http.StatusInternalServerError, envelopeOf(problem{
		Code:    "InternalServerError",
		Message: "The server could not do this: " + err.Error(),
	}, true))
}

// problemOf reports all faults: in the message for people, in the details for programs.
func problemOf(e *resource.InvalidError) problem {
	p := problem{Code: e.Faults[0].Code, Message: e.Error()}
	if len(e.Faults) == 1 {
		p.Target = e.Faults[0].Field
		return p
	}
	for _, f := range e.Faults {
		p.Details = append(p.Details, problem{Code: f.Code, Message: f.Message, Target: f.Field})
	}
	return p
}

// answer writes v as JSON.
func (c *call) answer(status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		c.Log.Error("api answer cannot be encoded as JSON", "path", c.r.URL.Path, "err", err)
		c.w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if status/100 == 2 && (c.r.Method == http.MethodGet || c.written != nil) && c.w.Header().Get("Cache-Control") != "no-store" {
		tag := entityTag(c.written, body)
		c.w.Header().Set("ETag", tag)
		if c.r.Method == http.MethodGet && isListed(c.r.Header.Values("If-None-Match"), func(t string) bool { return t == strings.Trim(tag, `"`) }) {
			c.w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	c.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	c.w.WriteHeader(status)
	if _, err := c.w.Write(body); err != nil {
		c.Log.Debug("api client left", "path", c.r.URL.Path, "err", err)
	}
}
