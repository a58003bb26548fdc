package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"penstock/internal/resource"
)

// follower is told how far the start of the replica has come that its ticket waits for.
type follower interface {
	// follows says whether it wants to be told. Wakes is false unless all it waits for is the start of a replica.
	follows(wakes bool) bool
	// passed is called with each stage. An error ends the wait.
	passed(resource.Stage) error
	// still is called when nothing has changed for a while. An error ends the wait.
	still() error
}

// follows says whether the response has begun as an event stream or may do so. A client that accepts other types too may be
// sent one of them by the app, and a client that waits for a 100 would not send its body after a response.
func (x *exchange) follows(wakes bool) bool {
	if x.events || !wakes {
		return x.events
	}
	if x.r.Header["Accept"] == nil || x.r.Method == http.MethodHead || x.websocket || isGRPC(x.r.Header) || expectsContinue(x.r) {
		return false
	}
	found := false
	for _, list := range x.r.Header["Accept"] {
		for item := range strings.SplitSeq(list, ",") {
			if !isEventStream(item) {
				return false
			}
			found = true
		}
	}
	return found
}

func isEventStream(mediaType string) bool {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	return strings.EqualFold(strings.Trim(mediaType, " \t"), "text/event-stream")
}

// passed sends a comment for each stage up to s that the client has not been told of. The first call sends the head of the
// response. If a start has failed and begins again, s is before the last stage.
func (x *exchange) passed(s resource.Stage) error {
	if !x.events {
		x.beginEvents()
	}
	var text strings.Builder
	for _, stage := range resource.Stages() {
		if next := stage.Compare(x.stage) > 0; next && stage.Compare(s) <= 0 || stage == s && !next && s != x.stage {
			fmt.Fprintf(&text, ": %s\n\n", stage)
		}
	}
	x.stage = s
	return x.event(text.String())
}

// still repeats the last comment, so that nothing between the client and the ingress takes the connection for dead.
func (x *exchange) still() error { return x.event(": " + string(x.stage) + "\n\n") }

// beginEvents sends the head of an event stream. The app's own head comes too late to be passed on.
func (x *exchange) beginEvents() {
	h := x.w.Header()
	clear(h)
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"} // nginx would hold events back
	if x.in.life.draining.Load() {
		h["Connection"] = []string{"close"}
	}
	x.mark(h)
	x.events = true
	x.guard()
	x.w.WriteHeader(http.StatusOK)
}

// event sends text at once.
func (x *exchange) event(text string) error {
	if text == "" {
		return nil
	}
	x.guard()
	n, err := io.WriteString(x.w, text)
	x.rec.BytesOut += int64(n)
	if err == nil {
		err = http.NewResponseController(x.w).Flush()
	}
	if err != nil {
		return errWrite{err}
	}
	return nil
}

// maxQuoted bounds how much of an app's body is quoted in an error event.
const maxQuoted = 64 << 10

// errorEvent is the data of an event with the name "error". Clients of OpenAI's API show its message.
type errorEvent struct {
	Error errorDetails `json:"error"`
}

type errorDetails struct {
	Status      int    `json:"status"`
	Message     string `json:"message"`
	RetryAfter  string `json:"retryAfter,omitempty"` // seconds
	ContentType string `json:"contentType,omitempty"`
	Body        string `json:"body,omitempty"` // of the app's response
	Truncated   bool   `json:"truncated,omitempty"`
}

// fail ends the event stream with an error. The access record has the status that the response would have had.
func (x *exchange) fail(e errorDetails) error {
	x.rec.Status, x.committed = e.Status, true
	e.RetryAfter = x.retryAfter
	data, err := json.Marshal(errorEvent{e})
	if err != nil {
		return err
	}
	return x.event("event: error\ndata: " + string(data) + "\n\n")
}

// join passes on the response of the app after the comments. A response that is no event stream becomes an error event.
// Whole says whether all of the response was read.
func (x *exchange) join(conn response, status int, h http.Header) (whole bool, err error) {
	kind := h.Get("Content-Type")
	coded := h.Get("Content-Encoding")
	if status == http.StatusOK && isEventStream(kind) && (coded == "" || strings.EqualFold(coded, "identity")) {
		x.rec.Status, x.committed = status, true
		return true, x.receive(conn)
	}
	body, whole, err := x.quote(conn)
	if err != nil {
		return false, err
	}
	e := errorDetails{Status: status, ContentType: kind, Truncated: !whole}
	switch {
	case coded != "":
		e.Message = fmt.Sprintf("the app's response has the content encoding %q, which an event stream that has begun cannot have", coded)
	case status != http.StatusOK:
		e.Message, e.Body = strings.TrimSpace(fmt.Sprintf("the app answered %d %s", status, http.StatusText(status))), string(body)
	default:
		e.Message, e.Body = fmt.Sprintf("the app's response is of the type %q, want text/event-stream", kind), string(body)
	}
	return whole, x.fail(e)
}

// quote reads the body of a response up to maxQuoted bytes.
func (x *exchange) quote(conn response) (body []byte, whole bool, err error) {
	flusher, ok := x.w.(http.Flusher)
	if !ok {
		return nil, false, errWrite{errors.New("the server cannot flush")}
	}
	for {
		p, err := conn.Next(flusher)
		if room := maxQuoted - len(body); len(p) > room {
			return append(body, p[:room]...), false, nil
		}
		body = append(body, p...)
		if errors.Is(err, io.EOF) {
			return body, true, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}
