package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// events reads a streamed answer event by event.
type events struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

// stream asks for a streamed answer and returns when its head is there.
func (p *program) stream(ctx context.Context, body string) (*events, error) {
	resp, err := p.open(ctx, http.MethodPost, "/v1/chat/completions", body)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return &events{p.t, resp, bufio.NewReader(resp.Body)}, nil
}

// next returns the data of the next event.
func (e *events) next() string {
	e.t.Helper()
	line, err := e.in.ReadString('\n')
	if err != nil {
		e.t.Fatalf("read an event: %v after %q", err, line)
	}
	blank, err := e.in.ReadString('\n')
	data, ok := strings.CutPrefix(line, "data: ")
	if err != nil || !ok || blank != "\n" {
		e.t.Fatalf("got %q and %q, want \"data: ...\" and a blank line", line, blank)
	}
	return strings.TrimSuffix(data, "\n")
}

// streamChunk is what the tests look at in an event.
type streamChunk struct {
	Object  string
	Choices []struct {
		Delta struct {
			Role    string
			Content *string
		}
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
}

func (e *events) chunk() streamChunk {
	e.t.Helper()
	var c streamChunk
	data := e.next()
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		e.t.Fatalf("%v in %q", err, data)
	}
	if c.Object != "chat.completion.chunk" {
		e.t.Errorf("got object %q in %s", c.Object, data)
	}
	return c
}

func (e *events) content() string {
	e.t.Helper()
	c := e.chunk()
	if len(c.Choices) != 1 || c.Choices[0].Delta.Content == nil || c.Choices[0].FinishReason != "" {
		e.t.Fatalf("got %+v, want a token", c)
	}
	return *c.Choices[0].Delta.Content
}

// TestEachTokenLeavesAtOnce reads each token while the next one cannot come yet: were anything between
// held back to fill a buffer, the test would not end.
func TestEachTokenLeavesAtOnce(t *testing.T) {
	p, gate := startGated(t, nil)
	const n = 5
	opened := make(chan *events)
	go func() {
		e, err := p.stream(t.Context(), question("hi", fmt.Sprintf(`"stream": true, "temperature": 0, "max_tokens": %d`, n)))
		if err != nil {
			t.Error(err)
		}
		opened <- e
	}()
	p.until("chat_slots_busy", "1")
	select {
	case <-opened:
		t.Fatal("an answer began before there was a token")
	default:
	}

	var text strings.Builder
	gate.open(t, 1)
	e := <-opened
	if e == nil {
		t.FailNow()
	}
	if got := e.resp.Header.Get("Content-Type"); e.resp.StatusCode != 200 || !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("got %d of %q, want 200 of text/event-stream", e.resp.StatusCode, got)
	}
	if c := e.chunk(); c.Choices[0].Delta.Role != "assistant" || *c.Choices[0].Delta.Content != "" {
		t.Errorf("first event: got %+v, want the role", c)
	}
	text.WriteString(e.content())
	for range n - 1 {
		gate.open(t, 1)
		text.WriteString(e.content())
	}
	if c := e.chunk(); c.Choices[0].FinishReason != "length" || c.Choices[0].Delta.Content != nil {
		t.Errorf("last chunk: got %+v, want finish_reason length and no content", c)
	}
	if got := e.next(); got != "[DONE]" {
		t.Errorf("end: got %q, want [DONE]", got)
	}
	if rest, err := io.ReadAll(e.in); err != nil || len(rest) > 0 {
		t.Errorf("after the end: got %q, %v", rest, err)
	}

	go gate.open(t, n)
	if whole, _, _ := p.ask("hi", fmt.Sprintf(`"temperature": 0, "max_tokens": %d`, n)); whole != text.String() {
		t.Errorf("streamed %q, but whole it is %q", text.String(), whole)
	}
}

func TestStreamWithUsage(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	e, err := p.stream(t.Context(), question("hi", `"stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2`))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // role, two tokens, reason
		if data := e.next(); !strings.Contains(data, `"usage":null`) {
			t.Errorf("got %s, want a usage of null", data)
		}
	}
	c := e.chunk()
	if len(c.Choices) != 0 || c.Usage == nil || c.Usage.Prompt != 5 || c.Usage.Completion != 2 || c.Usage.Total != 7 {
		t.Errorf("got %+v, want no choices and a usage of 5 + 2", c)
	}
	if got := e.next(); got != "[DONE]" {
		t.Errorf("got %q, want [DONE]", got)
	}
}

func TestStreamNeverShowsAPartOfAStop(t *testing.T) {
	p, gate := startGated(t, map[string]string{"TEMPERATURE": "0"})
	go gate.open(t, 6)
	full, _, _ := p.ask("hi", `"max_tokens": 6`)
	words := strings.Fields(full)

	// The stop sequence is the second and third word, so the second must wait until the third has come.
	stop := " " + words[1] + " " + words[2]
	opened := make(chan *events, 1)
	go func() {
		e, err := p.stream(t.Context(), question("hi", fmt.Sprintf(`"stream": true, "max_tokens": 6, "stop": %q`, stop)))
		if err != nil {
			t.Error(err)
		}
		opened <- e
	}()
	gate.open(t, 3)
	e := <-opened
	if e == nil {
		t.FailNow()
	}
	e.chunk() // role
	if got := e.content(); got != words[0] {
		t.Errorf("got %q, want %q", got, words[0])
	}
	if c := e.chunk(); c.Choices[0].FinishReason != "stop" {
		t.Errorf("got %+v, want the end by a stop sequence", c)
	}
}

func TestHeldBackTextIsSentAtTheEnd(t *testing.T) {
	p := start(t, map[string]string{"TEMPERATURE": "0"})
	p.logs.wait(t, "ready")
	full, _, _ := p.ask("hi", `"max_tokens": 2`)
	last := full[strings.LastIndex(full, " "):]
	if text, finish, _ := p.ask("hi", fmt.Sprintf(`"max_tokens": 2, "stop": %q`, last+" and what never comes")); text != full || finish != "length" {
		t.Errorf("got %q by %s, want %q by length", text, finish, full)
	}
}
