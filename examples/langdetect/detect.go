package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// answer is the body of a 200 of /detect. Language and code are null, with a reason, when no language can be named.
type answer struct {
	Language     *string `json:"language"`
	Code         *string `json:"code"`
	Confidence   float64 `json:"confidence"`
	Reason       string  `json:"reason,omitempty"`
	Alternatives []Guess `json:"alternatives"`
	Millis       float64 `json:"millis"` // in the model
}

func (s *server) detect(w http.ResponseWriter, r *http.Request) {
	m, ok := s.loaded(w)
	if !ok {
		return
	}
	text, err := readText(w, r, s.maxTextBytes)
	if err != nil {
		writeError(w, err)
		return
	}
	start := time.Now()
	d := m.Detect(text)
	a := answer{Reason: d.Reason, Alternatives: append([]Guess{}, d.Others...), Millis: millis(time.Since(start))}
	if d.Best != nil {
		a.Language, a.Code, a.Confidence = &d.Best.Name, &d.Best.Code, d.Best.Confidence
	}
	writeJSON(w, http.StatusOK, a)
}

// readText returns the text of a request's JSON body, {"text": "..."}, or a *requestError that says what is wrong with it.
func readText(w http.ResponseWriter, r *http.Request, maxBytes int) (string, error) {
	if err := checkContentType(r.Header); err != nil {
		return "", err
	}
	// JSON can encode one byte with six (\u0041). A longer body cannot contain a text that is short enough.
	limit := int64(maxBytes)*6 + 1024
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "", tooLong(maxBytes, fmt.Sprintf("a body of more than %d bytes", limit))
	}
	if err != nil {
		return "", invalid("unreadable_body", "the body ended early: %v", err)
	}
	text, err := parseText(body)
	if err != nil {
		return "", err
	}
	if len(text) > maxBytes {
		return "", tooLong(maxBytes, fmt.Sprintf("%d", len(text)))
	}
	return text, nil
}

// checkContentType accepts every content type that clients use for JSON. `curl -d` sends the type of a form by default, and a
// first try with curl should work. Parsing shows whether the body is JSON.
func checkContentType(h http.Header) error {
	if enc := h.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return &requestError{http.StatusUnsupportedMediaType, "unsupported_encoding", fmt.Sprintf("Content-Encoding: want none, got %q", enc)}
	}
	given := h.Get("Content-Type")
	if given == "" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(given)
	known := err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json") ||
		kind == "text/plain" || kind == "application/x-www-form-urlencoded")
	if charset := params["charset"]; !known || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return &requestError{http.StatusUnsupportedMediaType, "unsupported_content_type", fmt.Sprintf("Content-Type: want application/json in UTF-8, got %q", given)}
	}
	return nil
}

const example = `want {"text": "..."}`

// parseText parses {"text": "..."} and nothing else.
func parseText(body []byte) (string, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", invalid("empty_body", "the body is empty; %s", example)
	}
	if !utf8.Valid(body) {
		return "", invalid("not_utf8", "the body is not UTF-8; %s in UTF-8", example)
	}
	var request struct {
		Text *string `json:"text"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		return "", explain(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", invalid("not_json", "there is more after the JSON object, at byte %d; %s alone", dec.InputOffset(), example)
	}
	switch {
	case request.Text == nil:
		return "", invalid("missing_text", "text is missing; %s", example)
	case strings.TrimSpace(*request.Text) == "":
		return "", invalid("empty_text", "text: want some words, got an empty string")
	}
	return *request.Text, nil
}

// explain turns a decoder's error into one for the client.
func explain(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return invalid("wrong_type", "the body: want a JSON object, got a JSON %s; %s", wrong.Value, example)
		}
		return invalid("wrong_type", "%s: want a string, got a JSON %s", wrong.Field, wrong.Value)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid("unknown_field", "unknown field %s; %s and nothing else", field, example)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("not_json", "the body is not JSON: %v at byte %d; %s", syntax, syntax.Offset, example)
	}
	return invalid("not_json", "the body is not JSON: %v; %s", err, example)
}

func tooLong(maxBytes int, got string) error {
	return &requestError{http.StatusRequestEntityTooLarge, "text_too_long",
		fmt.Sprintf("text: want at most %d bytes of UTF-8 (MAX_TEXT_BYTES), got %s", maxBytes, got)}
}
