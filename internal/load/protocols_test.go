package load_test

import (
	"bufio"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/load"
)

// serve2 speaks HTTP/2 in the clear too.
func serve2(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that are to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for _, major := range []int{1, 2} {
		o := run(t, load.Request{URL: s.URL, Roots: roots, Major: major}, times(20))
		if o.Succeeded != 20 || o.Connections != 1 {
			t.Errorf("HTTP/%d: got %d succeeded over %d connections, %v", major, o.Succeeded, o.Connections, o.Errors)
		}
		o = run(t, load.Request{URL: s.URL, Roots: x509.NewCertPool(), Major: major}, times(1))
		if f := o.Errors[load.TLS]; f == nil || !strings.Contains(f.Example, "unknown authority") {
			t.Errorf("HTTP/%d: got %v, want an authority that is not trusted", major, o.Errors)
		}
	}
}

func TestHTTP2SharesConnections(t *testing.T) {
	const streams = 600 // more than a connection of Go's server allows
	var all sync.WaitGroup
	all.Add(streams)
	s := serve2(t, func(w http.ResponseWriter, r *http.Request) {
		all.Done()
		all.Wait()
		fmt.Fprint(w, r.ProtoMajor)
	})
	o := run(t, load.Request{URL: s.URL, Major: 2}, atOnce(streams))
	if o.Succeeded != streams || o.Connections < 3 || o.Connections > 6 || o.PeakOutstanding != streams {
		t.Errorf("got %d succeeded, %d connections, %d outstanding, %v", o.Succeeded, o.Connections, o.PeakOutstanding, o.Errors)
	}
}

// A server that has not got them all yet answers none: all are open at once.
func TestThousandsOfStreams(t *testing.T) {
	const streams = 2000
	var all sync.WaitGroup
	all.Add(streams)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		all.Done()
		all.Wait()
		fmt.Fprint(w, "data: 1\n\ndata: 2\n\n")
	})
	o := run(t, load.Request{URL: s.URL, Events: true}, atOnce(streams))
	if o.Succeeded != streams || o.PeakOutstanding != streams || o.Events != 2*streams || o.BetweenEvents.Count != streams {
		t.Errorf("got %d succeeded, %d outstanding, %d events, gaps %+v, %v", o.Succeeded, o.PeakOutstanding, o.Events, o.BetweenEvents, o.Errors)
	}
}

func TestEventsAreTimed(t *testing.T) {
	const head, first, between, last = 30 * time.Millisecond, 60 * time.Millisecond, 90 * time.Millisecond, 40 * time.Millisecond
	for _, major := range []int{1, 2} {
		s := serve2(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") != "text/event-stream" {
				t.Errorf("Accept: got %q", r.Header.Get("Accept"))
			}
			w.Header().Set("Content-Type", "text/event-stream")
			flush := w.(http.Flusher).Flush
			for _, step := range []struct {
				after time.Duration
				text  string
			}{
				{head, ": a comment\n\n"},
				{first, fmt.Sprintf("data: %d first\n\n", time.Now().Add(first).UnixNano())},
				{between, fmt.Sprintf("event: x\nid: 2\ndata:%d\r\ndata: more\r\n\r\n", time.Now().Add(first+between).UnixNano())},
				{last, "data: 0 is in no event, for it does not end"},
			} {
				time.Sleep(step.after)
				fmt.Fprint(w, step.text)
				flush()
			}
		})
		o := run(t, load.Request{URL: s.URL, Events: true, Stamped: true, Major: major}, times(1))
		if o.Succeeded != 1 || o.Events != 2 || o.EventDelay == nil || o.EventDelay.Count != 2 || o.BetweenEvents.Count != 1 {
			t.Fatalf("HTTP/%d: got %+v, errors %v", major, o.Summary, o.Errors)
		}
		r := o.records[0]
		// A busy machine may be late by any time, but never early.
		for name, got := range map[string]struct{ took, least time.Duration }{
			"first byte":   {r.FirstByte - r.Sent, head},
			"first event":  {r.FirstEvent - r.Sent, head + first},
			"second event": {r.FirstEvent + r.LongestGap - r.Sent, head + first + between},
			"last byte":    {r.LastByte - r.Sent, head + first + between + last},
		} {
			if got.took < got.least {
				t.Errorf("HTTP/%d, %s: got %s, want at least %s", major, name, got.took, got.least)
			}
		}
		if r.FirstEvent <= r.FirstByte || r.FirstEvent+r.LongestGap >= r.LastByte {
			t.Errorf("HTTP/%d: got %+v, want first byte, first event, second one, last byte in turn", major, r)
		}
	}
}

func TestClientsLeaveEndlessAnswers(t *testing.T) {
	for _, major := range []int{1, 2} {
		s := serve2(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		o := run(t, load.Request{URL: s.URL, Events: true, LeaveAfter: 100 * time.Millisecond, Major: major}, atOnce(10))
		if o.Succeeded != 10 || o.Left != 10 || o.Events != 10 || o.Latency.Min < 100 {
			t.Errorf("HTTP/%d: got %d succeeded, %d left, %d events, %+v, %v", major, o.Succeeded, o.Left, o.Events, o.Latency, o.Errors)
		}
	}
}

func TestUploadLargerThanBuffers(t *testing.T) {
	body := make([]byte, 3<<20)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			// Answers before it has read the body, and reads no more.
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	o := run(t, load.Request{URL: s.URL, Body: body}, times(3))
	if o.Succeeded != 3 || o.BytesOut != 9<<20 || o.Connections != 1 {
		t.Errorf("got %d succeeded, %d bytes out, %d connections, %v", o.Succeeded, o.BytesOut, o.Connections, o.Errors)
	}
	o = run(t, load.Request{URL: s.URL + "/early", Body: body}, times(3))
	if o.Statuses[413] != 3 {
		t.Errorf("got statuses %v, errors %v, want the early answer", o.Statuses, o.Errors)
	}
}

// echo is a server's side of a WebSocket that sends each message back in two frames with a ping between them.
func echo(t *testing.T, change func([]byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		for rw.Flush() == nil {
			op, payload, err := readFrame(rw.Reader)
			switch {
			case err != nil:
				return // the client has had enough of us
			case op == 10:
				if string(payload) != "still there?" {
					t.Errorf("pong: got %q", payload)
				}
			case op == 8:
				writeFrame(rw.Writer, 0x88, payload)
				rw.Flush()
				return
			default:
				change(payload)
				half := len(payload) / 2
				writeFrame(rw.Writer, 0x02, payload[:half])
				writeFrame(rw.Writer, 0x89, []byte("still there?"))
				writeFrame(rw.Writer, 0x80, payload[half:])
			}
		}
	}
}

func writeFrame(w *bufio.Writer, head byte, payload []byte) {
	w.WriteByte(head)
	switch n := len(payload); {
	case n < 126:
		w.WriteByte(byte(n))
	case n < 1<<16:
		w.Write(binary.BigEndian.AppendUint16([]byte{126}, uint16(n)))
	default:
		w.Write(binary.BigEndian.AppendUint64([]byte{127}, uint64(n)))
	}
	w.Write(payload)
}

func readFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	var head [14]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 == 0 {
		return 0, nil, fmt.Errorf("frame begins with %x; want a whole, masked one", head[:2])
	}
	size := int(head[1] & 0x7f)
	more := map[int]int{126: 2, 127: 8}[size]
	if _, err := io.ReadFull(r, head[2:2+more]); err != nil {
		return 0, nil, err
	}
	if more > 0 {
		size = 0
		for _, b := range head[2 : 2+more] {
			size = size<<8 | int(b)
		}
	}
	var mask [4]byte
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return 0, nil, err
	}
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, err
}

func TestWebSocketEcho(t *testing.T) {
	s := serve(t, echo(t, func([]byte) {}))
	url := "ws" + strings.TrimPrefix(s.URL, "http")
	for _, size := range []int{0, 1, 125, 126, 1000, 65535, 65536, 200_000} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i)
		}
		o := run(t, load.Request{URL: url, Body: body, Messages: 3}, times(2))
		if o.Succeeded != 2 || o.Events != 6 || o.BytesIn != int64(6*size) || o.BytesOut != o.BytesIn || o.BetweenEvents.Count != 6 || o.Connections != 2 {
			t.Errorf("%d bytes: got %d succeeded, %d echoes, %d bytes, %v", size, o.Succeeded, o.Events, o.BytesIn, o.Errors)
		}
	}
	s = serve(t, echo(t, func(b []byte) { b[0]++ }))
	o := run(t, load.Request{URL: "ws" + strings.TrimPrefix(s.URL, "http"), Body: []byte("abc")}, times(1))
	if o.Errors[load.Content] == nil {
		t.Errorf("got %v, want an echo that is not what was sent", o.Errors)
	}
}
