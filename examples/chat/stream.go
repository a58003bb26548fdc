package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// writeLimit is how long writing an event may take. A client that stops reading would otherwise hold its slot for ever.
const writeLimit = 30 * time.Second

// stream sends a response as server-sent events, each immediately.
type stream struct {
	w         *response
	ctrl      *http.ResponseController
	head      head
	withUsage bool
	begun     bool
}

func newStream(w *response, h head, withUsage bool) *stream {
	h.Object = "chat.completion.chunk"
	return &stream{w: w, ctrl: http.NewResponseController(w), head: h, withUsage: withUsage}
}

// token sends the text of a token. The response head is sent with the first one, so a client sees no response before there
// is one.
func (s *stream) token(text string) error {
	if !s.begun {
		if err := s.begin(); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	return s.choice(delta{Content: &text}, nil)
}

func (s *stream) begin() error {
	s.begun = true
	s.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusOK)
	return s.choice(delta{Role: "assistant", Content: new(string)}, nil)
}

// end sends the finish reason, the usage if requested, and the end mark.
func (s *stream) end(finish string, u usage) error {
	if err := s.choice(delta{}, &finish); err != nil {
		return err
	}
	if s.withUsage {
		if err := s.event(chunkWithUsage{chunk{s.head, []chunkChoice{}}, &u}); err != nil {
			return err
		}
	}
	if err := s.send([]byte("[DONE]")); err != nil {
		return err
	}
	return s.ctrl.SetWriteDeadline(time.Time{}) // the connection may be reused
}

func (s *stream) choice(d delta, finish *string) error {
	c := chunk{s.head, []chunkChoice{{Delta: d, FinishReason: finish}}}
	if s.withUsage {
		return s.event(chunkWithUsage{chunk: c})
	}
	return s.event(c)
}

func (s *stream) event(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.send(data)
}

func (s *stream) send(data []byte) error {
	if err := s.ctrl.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "data: %s\n\n", data); err != nil {
		return err
	}
	return s.ctrl.Flush()
}
