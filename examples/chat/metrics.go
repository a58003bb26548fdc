package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// counts holds counters, which only grow.
type counts struct {
	prompt, generated atomic.Int64 // tokens

	mu       sync.Mutex
	byStatus map[int]int64
}

func (c *counts) request(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byStatus == nil {
		c.byStatus = make(map[int]int64)
	}
	c.byStatus[status]++
}

func (c *counts) requests() map[int]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.byStatus)
}

// metrics responds in Prometheus' text format, version 0.0.4.
func (s *server) metrics(w *response, _ *http.Request) error {
	var b strings.Builder
	metric := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	single := func(name, kind, help string, value int64) {
		metric(name, kind, help)
		fmt.Fprintf(&b, "%s %d\n", name, value)
	}
	var weights, ready int64
	if m := s.weights.Load(); m != nil {
		weights, ready = m.Size, 1
	}
	busy, waiting := s.slots.state()
	single("chat_ready", "gauge", "1 when the weights are loaded.", ready)
	single("chat_slots", "gauge", "Generations that run at once at most.", int64(s.cfg.Slots))
	single("chat_slots_busy", "gauge", "Generations that run.", int64(busy))
	single("chat_queue_length", "gauge", "Requests that wait for a slot.", int64(waiting))
	single("chat_prompt_tokens_total", "counter", "Tokens of prompts.", s.counts.prompt.Load())
	single("chat_generated_tokens_total", "counter", "Tokens generated.", s.counts.generated.Load())
	single("chat_weights_bytes", "gauge", "Size of the mapped weights.", weights)
	single("chat_leaked_bytes", "gauge", "Memory leaked on purpose.", s.leak.bytes())
	single("process_resident_memory_bytes", "gauge", "Memory of the process, mapped weights included; 0 where there is no /proc.", residentBytes())
	metric("chat_requests_total", "counter", "Requests by status; 499 for clients that left before an answer.")
	requests := s.counts.requests()
	for _, status := range slices.Sorted(maps.Keys(requests)) {
		fmt.Fprintf(&b, "chat_requests_total{status=\"%d\"} %d\n", status, requests[status])
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, err := w.Write([]byte(b.String()))
	return err
}
