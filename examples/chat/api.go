package main

import "encoding/json"

// The types in this file are those of OpenAI's API: platform.openai.com/docs/api-reference/chat.

const invalidRequest = "invalid_request_error"

// apiError is an error in the form that OpenAI's clients expect.
type apiError struct {
	Status  int
	Message string
	Type    string
	Param   string // the faulty field, if any
	Code    string // for programs
}

func (e *apiError) Error() string { return e.Message }

// MarshalJSON writes null for empty fields.
func (e *apiError) MarshalJSON() ([]byte, error) {
	orNull := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return json.Marshal(struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Param   any    `json:"param"`
		Code    any    `json:"code"`
	}{e.Message, e.Type, orNull(e.Param), orNull(e.Code)})
}

type modelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "model"
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// head holds the fields that every part of a response has.
type head struct {
	ID          string `json:"id"`
	Object      string `json:"object"` // "chat.completion" or "chat.completion.chunk"
	Created     int64  `json:"created"`
	Model       string `json:"model"`
	Fingerprint string `json:"system_fingerprint"`
}

// completion is a whole response.
type completion struct {
	head
	Choices []completionChoice `json:"choices"`
	Usage   usage              `json:"usage"`
}

type completionChoice struct {
	Index        int           `json:"index"`
	Message      answerMessage `json:"message"`
	LogProbs     *struct{}     `json:"logprobs"` // always null
	FinishReason string        `json:"finish_reason"`
}

type answerMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // always null
}

// chunk is one event of a streamed response.
type chunk struct {
	head
	Choices []chunkChoice `json:"choices"`
}

// chunkWithUsage is an event for requests with stream_options.include_usage. usage is null in all but the last event.
type chunkWithUsage struct {
	chunk
	Usage *usage `json:"usage"`
}

type chunkChoice struct {
	Index        int       `json:"index"`
	Delta        delta     `json:"delta"`
	LogProbs     *struct{} `json:"logprobs"`      // always null
	FinishReason *string   `json:"finish_reason"` // null in all but the last
}

type delta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}
