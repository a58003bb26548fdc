package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
)

// asked is a request under way.
type asked struct {
	leave context.CancelFunc
	done  chan int // status, or 0 when the client left
}

// askLater sends a question of one token, and returns when the server has as many busy and waiting as given.
func (p *program) askLater(busy, waiting int) *asked {
	p.t.Helper()
	ctx, leave := context.WithCancel(p.t.Context())
	a := &asked{leave: leave, done: make(chan int, 1)}
	go func() {
		resp, err := p.open(ctx, http.MethodPost, "/v1/chat/completions", question("hi", `"max_tokens": 1`))
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				p.t.Error(err)
			}
			a.done <- 0
			return
		}
		defer resp.Body.Close()
		a.done <- resp.StatusCode
	}()
	p.until("chat_slots_busy", fmt.Sprint(busy))
	p.until("chat_queue_length", fmt.Sprint(waiting))
	return a
}

// served waits until now is answered with 200, and fails if one of later has been answered before its turn.
func served(t *testing.T, now *asked, later ...*asked) {
	t.Helper()
	if status := <-now.done; status != 200 {
		t.Errorf("got %d, want 200", status)
	}
	for i, a := range later {
		select {
		case status := <-a.done:
			t.Fatalf("request %d behind it was answered too early, with %d", i+1, status)
		default:
		}
	}
}

func TestSlotsServeInOrder(t *testing.T) {
	p, gate := startGated(t, map[string]string{"SLOTS": "1"})
	first := p.askLater(1, 0)
	second := p.askLater(1, 1)
	third := p.askLater(1, 2)

	gate.open(t, 1)
	served(t, first, second, third)
	p.until("chat_queue_length", "1")
	gate.open(t, 1)
	served(t, second, third)
	p.until("chat_queue_length", "0")
	gate.open(t, 1)
	served(t, third)
	p.until("chat_slots_busy", "0")
}

func TestSlotsServeAtOnceAsManyAsThereAre(t *testing.T) {
	p, gate := startGated(t, map[string]string{"SLOTS": "2"})
	first := p.askLater(1, 0)
	second := p.askLater(2, 0)
	third := p.askLater(2, 1)
	gate.open(t, 3)
	for _, a := range []*asked{first, second, third} {
		served(t, a)
	}
}

func TestClientThatLeavesTheQueueIsSkipped(t *testing.T) {
	p, gate := startGated(t, map[string]string{"SLOTS": "1"})
	first := p.askLater(1, 0)
	second := p.askLater(1, 1)
	third := p.askLater(1, 2)
	second.leave()
	<-second.done
	p.until("chat_queue_length", "1")
	gate.open(t, 1)
	served(t, first, third)
	gate.open(t, 1)
	served(t, third)
	p.until(`chat_requests_total{status="499"}`, "1")
}

func TestClientThatLeavesItsGenerationFreesTheSlot(t *testing.T) {
	p, gate := startGated(t, map[string]string{"SLOTS": "1"})
	first := p.askLater(1, 0)
	second := p.askLater(1, 1)
	first.leave()
	<-first.done
	p.until("chat_queue_length", "0")
	gate.open(t, 1)
	served(t, second)
}

func TestFullQueueAnswersAtOnce(t *testing.T) {
	p, gate := startGated(t, map[string]string{"SLOTS": "1", "QUEUE_LIMIT": "1"})
	first := p.askLater(1, 0)
	second := p.askLater(1, 1)
	status, head, answer := p.call(http.MethodPost, "/v1/chat/completions", question("hi", ""))
	fault, _ := answer["error"].(map[string]any)
	if status != 503 || head.Get("Retry-After") == "" || fault["type"] != "server_error" || fault["code"] != "overloaded" {
		t.Errorf("got %d %v %v, want 503 overloaded with Retry-After", status, head, answer)
	}
	gate.open(t, 2)
	served(t, first)
	served(t, second)
}
