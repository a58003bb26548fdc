package load_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"penstock/internal/load"
)

// echoServer is the library's side of a WebSocket that sends each message back.
func echoServer(tb testing.TB) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		c.SetReadLimit(1 << 30)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))
	tb.Cleanup(s.Close)
	return strings.Replace(s.URL, "http", "ws", 1)
}

func TestWebSocketOfAnotherLibrary(t *testing.T) {
	o := run(t, load.Request{URL: echoServer(t), Body: make([]byte, 70_000), Messages: 3}, times(2))
	if o.Succeeded != 2 || o.Events != 6 {
		t.Errorf("got %d succeeded and %d echoes, %v; want 2 and 6", o.Succeeded, o.Events, o.Errors)
	}
}

func BenchmarkWebSocket(b *testing.B) {
	url := echoServer(b)
	for name, messages := range map[string]int{"handshake": 1, "messages": 1000} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l, err := load.New(b.Context(), withDefaults(load.Request{URL: url, Body: make([]byte, 200), Messages: messages}), planDefaults(load.Plan{Clients: 8, Count: int64(b.N)}), io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			s, _, err := l.Run(b.Context())
			if err != nil || s.Failed > 0 {
				b.Fatal(err, s.Errors)
			}
			b.ReportMetric(s.BetweenEvents.P50*1000, "p50us")
			b.ReportMetric(s.BetweenEvents.P99*1000, "p99us")
			b.ReportMetric(s.GeneratorCPU*1e6/float64(s.Events), "cpu-us/event")
		})
	}
}
