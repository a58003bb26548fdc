package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// maxBody is far larger than any prompt for a model of this size.
const maxBody = 4 << 20

// chatRequest is a checked request, with the server's defaults for missing fields.
type chatRequest struct {
	Model        string
	Prompt       string // all messages with their roles
	PromptTokens int
	MaxTokens    int
	Sampling     sampling
	Stops        []string
	Stream       bool
	IncludeUsage bool // in the stream
}

// sampling holds the parameters for choosing a token.
type sampling struct {
	Temperature float64
	TopP        float64
	Seed        int64
}

// wireRequest is the body of POST /v1/chat/completions. Fields that are not listed are rejected, so nothing is silently
// ignored.
type wireRequest struct {
	Model         string        `json:"model"`
	Messages      []wireMessage `json:"messages"`
	Stream        bool          `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	Seed                int64           `json:"seed"`
	Stop                json.RawMessage `json:"stop"` // a string, a list of them, or null

	// Accepted only with values that have no effect.
	N                *int     `json:"n"`
	PresencePenalty  *float64 `json:"presence_penalty"`
	FrequencyPenalty *float64 `json:"frequency_penalty"`
	LogProbs         *bool    `json:"logprobs"`
	User             string   `json:"user"` // the end user; not used
}

type wireMessage struct {
	Role    string          `json:"role"`
	Name    string          `json:"name"`
	Content json.RawMessage `json:"content"` // a string, or a list of parts
}

// readRequest reads a body and checks it, or returns an *apiError that says what is wrong.
func readRequest(w http.ResponseWriter, r *http.Request, cfg config) (chatRequest, error) {
	body, err := readBody(w, r)
	if err != nil {
		return chatRequest{}, err
	}
	return parseRequest(body, cfg)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// `curl -d` sends the content type of a form by default, and a first try with curl should work.
	if given := r.Header.Get("Content-Type"); given != "" {
		kind, _, err := mime.ParseMediaType(given)
		if err != nil || !slices.Contains([]string{"application/json", "text/plain", "application/x-www-form-urlencoded"}, kind) {
			return nil, &apiError{Status: http.StatusUnsupportedMediaType, Type: invalidRequest, Code: "unsupported_content_type",
				Message: fmt.Sprintf("Content-Type: want application/json, got %q", given)}
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &apiError{Status: http.StatusRequestEntityTooLarge, Type: invalidRequest, Code: "body_too_large",
			Message: fmt.Sprintf("the body: want at most %d bytes, got more", maxBody)}
	}
	if err != nil {
		return nil, invalid("", "unreadable_body", "the body ended early: %v", err)
	}
	return body, nil
}

// decode reads one JSON object into v and rejects fields that v does not have.
func decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return invalid("", "empty_body", "the body is empty; want a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return invalid("", "not_json", "there is more after the JSON object, at byte %d", dec.InputOffset())
		}
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(wrong.Field, "wrong_type", "%s: got a JSON %s, which does not fit", cmp.Or(wrong.Field, "the body"), wrong.Value)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		field = strings.Trim(field, `"`)
		return invalid(field, "unknown_parameter", "unrecognized request argument supplied: %s", field)
	}
	return invalid("", "not_json", "the body is not JSON: %v", err)
}

func parseRequest(body []byte, cfg config) (chatRequest, error) {
	var wire wireRequest
	if err := decode(body, &wire); err != nil {
		return chatRequest{}, err
	}
	if wire.Model == "" {
		return chatRequest{}, invalid("model", "missing_parameter", "model: want the id of a model, see GET /v1/models")
	}
	if err := refuseUnsupported(wire); err != nil {
		return chatRequest{}, err
	}
	req := chatRequest{Model: wire.Model, Stream: wire.Stream, MaxTokens: cfg.MaxTokens}
	var err error
	if req.Prompt, req.PromptTokens, err = prompt(wire.Messages); err != nil {
		return chatRequest{}, err
	}
	if req.Stops, err = parseStop(wire.Stop); err != nil {
		return chatRequest{}, err
	}
	if req.Sampling, err = parseSampling(wire, cfg.Temperature); err != nil {
		return chatRequest{}, err
	}
	if wire.StreamOptions != nil {
		if !wire.Stream {
			return chatRequest{}, invalid("stream_options", "invalid_value", "stream_options: only for \"stream\": true")
		}
		req.IncludeUsage = wire.StreamOptions.IncludeUsage
	}
	if wire.MaxTokens != nil && wire.MaxCompletionTokens != nil {
		return chatRequest{}, invalid("max_tokens", "invalid_value", "max_tokens: it is the old name of max_completion_tokens; want one of the two")
	}
	for name, n := range map[string]*int{"max_tokens": wire.MaxTokens, "max_completion_tokens": wire.MaxCompletionTokens} {
		if n == nil {
			continue
		}
		if *n < 1 {
			return chatRequest{}, invalid(name, "invalid_value", "%s: want 1 or more, got %d", name, *n)
		}
		req.MaxTokens = min(*n, cfg.MaxTokens) // clients often ask for thousands; the server's limit applies
	}
	return req, nil
}

// refuseUnsupported rejects fields that would change a real model's response but have no effect here.
func refuseUnsupported(wire wireRequest) error {
	zero := func(f *float64) bool { return f == nil || *f == 0 }
	switch {
	case wire.N != nil && *wire.N != 1:
		return invalid("n", "unsupported_value", "n: this server gives 1 choice, got %d", *wire.N)
	case !zero(wire.PresencePenalty):
		return invalid("presence_penalty", "unsupported_value", "presence_penalty: this server has none but 0, got %g", *wire.PresencePenalty)
	case !zero(wire.FrequencyPenalty):
		return invalid("frequency_penalty", "unsupported_value", "frequency_penalty: this server has none but 0, got %g", *wire.FrequencyPenalty)
	case wire.LogProbs != nil && *wire.LogProbs:
		return invalid("logprobs", "unsupported_value", "logprobs: this server has none")
	}
	return nil
}

func parseSampling(wire wireRequest, temperature float64) (sampling, error) {
	s := sampling{Temperature: temperature, TopP: 1, Seed: wire.Seed}
	if wire.Temperature != nil {
		if s.Temperature = *wire.Temperature; s.Temperature < 0 || s.Temperature > 2 {
			return sampling{}, invalid("temperature", "invalid_value", "temperature: want 0 to 2, got %g", s.Temperature)
		}
	}
	if wire.TopP != nil {
		if s.TopP = *wire.TopP; s.TopP <= 0 || s.TopP > 1 {
			return sampling{}, invalid("top_p", "invalid_value", "top_p: want more than 0, up to 1, got %g", s.TopP)
		}
	}
	return s, nil
}

// prompt joins the messages into one text and counts their tokens.
func prompt(messages []wireMessage) (text string, tokens int, err error) {
	if len(messages) == 0 {
		return "", 0, invalid("messages", "missing_parameter", "messages: want one or more, got none")
	}
	const perMessage = 4 // a chat template marks beginning, role and end of each
	var b strings.Builder
	for i, m := range messages {
		if !slices.Contains([]string{"system", "developer", "user", "assistant", "tool"}, m.Role) {
			param := fmt.Sprintf("messages[%d].role", i)
			return "", 0, invalid(param, "invalid_value", "%s: want system, developer, user, assistant or tool, got %q", param, m.Role)
		}
		content, err := contentText(fmt.Sprintf("messages[%d].content", i), m.Content)
		if err != nil {
			return "", 0, err
		}
		fmt.Fprintf(&b, "%s %s: %s\n", m.Role, m.Name, content)
		tokens += perMessage + countTokens(content)
	}
	return b.String(), tokens, nil
}

// contentText reads a message's content: a string, or a list of text parts.
func contentText(param string, raw json.RawMessage) (string, error) {
	if isNull(raw) {
		return "", invalid(param, "missing_parameter", "%s: want a string or a list of text parts, got none", param)
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return "", invalid(param, "wrong_type", "%s: want a string or a list of text parts, got %.40s", param, raw)
	}
	for i, part := range parts {
		if part.Type != "text" || part.Text == nil {
			return "", invalid(param, "unsupported_value", "%s[%d]: want {\"type\": \"text\", \"text\": \"...\"}, got type %q", param, i, part.Type)
		}
		text += *part.Text
	}
	return text, nil
}

// maxStops is OpenAI's limit.
const maxStops = 4

func parseStop(raw json.RawMessage) ([]string, error) {
	if isNull(raw) {
		return nil, nil
	}
	var stops []string
	var one string
	if json.Unmarshal(raw, &one) == nil {
		stops = []string{one}
	} else if err := json.Unmarshal(raw, &stops); err != nil {
		return nil, invalid("stop", "wrong_type", "stop: want a string or a list of strings, got %.40s", raw)
	}
	if len(stops) > maxStops {
		return nil, invalid("stop", "invalid_value", "stop: want at most %d sequences, got %d", maxStops, len(stops))
	}
	if slices.Contains(stops, "") {
		return nil, invalid("stop", "invalid_value", "stop: want sequences of one character or more, got an empty one")
	}
	return stops, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func invalid(param, code, format string, args ...any) error {
	return &apiError{Status: http.StatusBadRequest, Type: invalidRequest, Param: param, Code: code, Message: fmt.Sprintf(format, args...)}
}
