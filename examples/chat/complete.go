package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// owner is owned_by in the list of models. It says that they are simulated.
const owner = "penstock-simulator"

func (s *server) models(w *response, _ *http.Request) error {
	m, err := s.loaded(w)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, map[string]any{"object": "list", "data": []modelInfo{s.info(m.Name)}})
}

func (s *server) oneModel(w *response, r *http.Request) error {
	m, err := s.loaded(w)
	if err != nil {
		return err
	}
	if id := r.PathValue("id"); id != m.Name {
		return unknownModel(id, m.Name)
	}
	return w.json(http.StatusOK, s.info(m.Name))
}

func (s *server) info(name string) modelInfo {
	return modelInfo{ID: name, Object: "model", Created: s.started.Unix(), OwnedBy: owner}
}

func unknownModel(got, want string) error {
	return &apiError{Status: http.StatusNotFound, Type: invalidRequest, Param: "model", Code: "model_not_found",
		Message: fmt.Sprintf("model: this server has %q, got %q", want, got)}
}

// complete handles POST /v1/chat/completions.
func (s *server) complete(w *response, r *http.Request) error {
	m, err := s.loaded(w)
	if err != nil {
		return err
	}
	req, err := readRequest(w, r, s.cfg)
	if err != nil {
		return err
	}
	if req.Model != m.Name {
		return unknownModel(req.Model, m.Name)
	}

	came := time.Now()
	release, err := s.slots.acquire(r.Context())
	if errors.Is(err, errQueueFull) {
		w.retryAfter(time.Second)
		return &apiError{Status: http.StatusServiceUnavailable, Type: "server_error", Code: "overloaded",
			Message: fmt.Sprintf("%v: %d slots, %d waiting; try again later", err, s.cfg.Slots, s.cfg.QueueLimit)}
	}
	w.note("waited_millis", rounded(time.Since(came).Seconds()*1e3))
	if err != nil {
		return err
	}
	defer release()
	s.leak.add(s.cfg.LeakBytes)

	h := head{ID: "chatcmpl-" + rand.Text(), Created: time.Now().Unix(), Model: m.Name, Fingerprint: owner}
	var out interface {
		token(text string) error
		end(finish string, u usage) error
	}
	if req.Stream {
		out = newStream(w, h, req.IncludeUsage)
	} else {
		out = &whole{w: w, head: h}
	}
	finish, tokens, err := s.generate(r.Context(), req, out.token)
	s.counts.prompt.Add(int64(req.PromptTokens))
	s.counts.generated.Add(int64(tokens))
	w.note("stream", req.Stream, "prompt_tokens", req.PromptTokens, "completion_tokens", tokens, "finish", finish)
	if err != nil {
		return err
	}
	return out.end(finish, usage{req.PromptTokens, tokens, req.PromptTokens + tokens})
}

// generate generates a response and passes each token's text to emit when it is due. The text is "" while it is held back
// because a stop sequence may begin there. It returns OpenAI's finish_reason and the number of tokens.
func (s *server) generate(ctx context.Context, req chatRequest, emit func(text string) error) (finish string, tokens int, err error) {
	pace := s.newPacer()
	gen := newGeneration(req.Prompt, req.Sampling)
	stop := stopper{stops: req.Stops}
	for ; tokens < req.MaxTokens; tokens++ {
		token, more := gen.next()
		if !more {
			return "stop", tokens, emitRest(&stop, emit)
		}
		if err := pace.wait(ctx, tokens); err != nil {
			return "cut_short", tokens, err
		}
		if err := s.faults.wait(ctx); err != nil {
			return "cut_short", tokens, err
		}
		text, met := stop.push(token)
		if err := emit(text); err != nil {
			return "cut_short", tokens, err
		}
		if met {
			return "stop", tokens + 1, nil
		}
	}
	return "length", tokens, emitRest(&stop, emit)
}

func emitRest(stop *stopper, emit func(string) error) error {
	if text := stop.rest(); text != "" {
		return emit(text)
	}
	return nil
}

// whole collects a response and sends it at the end.
type whole struct {
	w    *response
	head head
	text strings.Builder
}

func (c *whole) token(text string) error {
	c.text.WriteString(text)
	return nil
}

func (c *whole) end(finish string, u usage) error {
	c.head.Object = "chat.completion"
	return c.w.json(http.StatusOK, completion{
		head: c.head,
		Choices: []completionChoice{{
			Message:      answerMessage{Role: "assistant", Content: c.text.String()},
			FinishReason: finish,
		}},
		Usage: u,
	})
}
