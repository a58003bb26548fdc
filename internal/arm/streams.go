package arm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

const (
	// defaultTail is how many lines az asks for by default.
	defaultTail = 20
	// maxTail bounds the number of old lines of a stream.
	maxTail = 100_000
	// streamPatience is how long a client can read nothing before its stream is ended.
	streamPatience = 30 * time.Second
	// defaultQuiet is half the idle time after which common proxies and load balancers close a connection.
	defaultQuiet = 30 * time.Second
)

// streamQuery has the query parameters of all streams.
type streamQuery struct {
	follow bool
	json   bool
	tail   int // as in logs.Query: -1 means none
}

func readStreamQuery(query url.Values) (q streamQuery, err error) {
	q.tail = defaultTail
	var faults []resource.Fault
	bad := func(field, want, got string) {
		faults = append(faults, resource.Fault{Code: "InvalidParameterValue", Field: field, Message: fmt.Sprintf("want %s, got %q", want, got)})
	}
	if s := query.Get("follow"); s != "" {
		if q.follow, err = strconv.ParseBool(s); err != nil {
			bad("follow", "true or false", s)
		}
	}
	switch s := query.Get("output"); strings.ToLower(s) {
	case "", "json":
		q.json = true
	case "text":
	default:
		bad("output", "json or text", s)
	}
	if s := query.Get("tailLines"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > maxTail {
			bad("tailLines", fmt.Sprintf("0 to %d", maxTail), s)
		}
		q.tail = n
	}
	if q.tail == 0 {
		q.tail = -1
	}
	if len(faults) > 0 {
		return q, &resource.InvalidError{Faults: faults}
	}
	return q, nil
}

// consoleLine is a line of a log stream. Azure's lines have only the time and the text.
type consoleLine struct {
	TimeStamp     string  `json:"TimeStamp"`
	RevisionName  *string `json:"RevisionName,omitempty"`
	ExecutionName *string `json:"ExecutionName,omitempty"`
	ReplicaName   string  `json:"ReplicaName"`
	ContainerName string  `json:"ContainerName"`
	Stream        string  `json:"Stream"`
	Log           string  `json:"Log"`
}

// streamConsole sends what the containers of an app or a job print: all containers, or those that the address or the query
// names.
func streamConsole(c *call) error {
	found, err := c.source()
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	q, err := readStreamQuery(query)
	if err != nil {
		return err
	}
	name := func(part string) string {
		if s := c.vars[part]; s != "" {
			return s
		}
		return query.Get(part)
	}
	send, end := c.startStream(q)
	defer end()
	lines := c.Console.Read(c.r.Context(), logs.Query{
		App: found.ID, Revision: cmp.Or(name("revision"), name("execution")), Replica: name("replica"), Container: name("container"), Tail: q.tail, Follow: q.follow,
	})
	for line, err := range lines {
		if err != nil {
			c.endStream(err)
			return nil
		}
		text := strings.ToValidUTF8(line.Text, "\uFFFD")
		at := line.At.UTC().Format(time.RFC3339Nano)
		shown := consoleLine{TimeStamp: at, RevisionName: &line.Revision, ReplicaName: line.Replica, ContainerName: line.Container, Stream: line.Stream, Log: text}
		if found.ID.Is(resource.TypeJob) {
			shown.RevisionName, shown.ExecutionName = nil, &line.Revision
		}
		if !send(at+" "+text, shown) {
			return nil
		}
	}
	return nil
}

// systemLine is a line of an event stream, as in Azure. DurationMs is how long the step took whose end it reports.
type systemLine struct {
	TimeStamp        string  `json:"TimeStamp"`
	Type             string  `json:"Type"`
	ContainerAppName *string `json:"ContainerAppName,omitempty"`
	RevisionName     *string `json:"RevisionName,omitempty"`
	JobName          *string `json:"JobName,omitempty"`
	ExecutionName    *string `json:"ExecutionName,omitempty"`
	ReplicaName      string  `json:"ReplicaName"`
	Msg              string  `json:"Msg"`
	Reason           string  `json:"Reason"`
	EventSource      string  `json:"EventSource"`
	Count            int     `json:"Count"`
	DurationMs       float64 `json:"DurationMs,omitempty"`
}

// streamEvents sends the events of an app, a job or an environment.
func streamEvents(c *call) error {
	found, err := c.source()
	if err != nil {
		return err
	}
	q, err := readStreamQuery(c.r.URL.Query())
	if err != nil {
		return err
	}
	send, end := c.startStream(q)
	defer end()
	events := c.System.Read(c.r.Context(), logs.EventQuery{
		App: found.ID, Revision: cmp.Or(c.r.URL.Query().Get("revision"), c.r.URL.Query().Get("execution")), Tail: q.tail, Follow: q.follow,
	})
	for e, err := range events {
		if err != nil {
			c.endStream(err)
			return nil
		}
		line := systemLine{
			TimeStamp:        e.At.UTC().Format("2006-01-02 15:04:05.999999999 -0700 MST"),
			Type:             "Normal",
			ContainerAppName: new(found.ID.Base()),
			RevisionName:     &e.Revision,
			ReplicaName:      e.Replica,
			Msg:              e.Message,
			Reason:           e.Reason,
			EventSource:      e.Source,
			Count:            1,
			DurationMs:       float64(e.Duration) / float64(time.Millisecond),
		}
		if e.Warning {
			line.Type = "Warning"
		}
		if found.ID.Is(resource.TypeJob) {
			line.JobName, line.ExecutionName = line.ContainerAppName, line.RevisionName
			line.ContainerAppName, line.RevisionName = nil, nil
		}
		if !send(fmt.Sprintf("%s %s %s %s", line.TimeStamp, line.Type, line.Reason, line.Msg), line) {
			return nil
		}
	}
	return nil
}

// startStream sends the headers at once and returns a function that sends a line. The function returns false when the
// client has left. While there is nothing to send, a stream gets empty lines, which clients skip, so that no proxy takes it for
// dead. The caller calls end before it returns.
func (c *call) startStream(q streamQuery) (send func(text string, v any) bool, end func()) {
	to := http.NewResponseController(c.w)
	kind := "text/plain; charset=utf-8"
	if q.json {
		kind = "application/x-ndjson; charset=utf-8"
	}
	c.w.Header().Set("Content-Type", kind)
	c.w.WriteHeader(http.StatusOK)
	var mu sync.Mutex // guards left, and the writing
	left := to.Flush() != nil
	write := func(line []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if left || to.SetWriteDeadline(time.Now().Add(streamPatience)) != nil {
			return false
		}
		_, err := c.w.Write(line)
		left = err != nil || to.Flush() != nil
		// The connection can serve other requests after this one.
		return to.SetWriteDeadline(time.Time{}) == nil && !left
	}
	quiet := cmp.Or(c.Quiet, defaultQuiet)
	var wg sync.WaitGroup
	idle, done := time.NewTimer(quiet), make(chan struct{})
	wg.Go(func() {
		defer idle.Stop()
		for {
			select {
			case <-idle.C:
				write([]byte("\n"))
				idle.Reset(quiet)
			case <-done:
				return
			}
		}
	})
	send = func(text string, v any) bool {
		out := []byte(text)
		if q.json {
			var err error
			if out, err = json.Marshal(v); err != nil {
				c.Log.Error("stream line cannot be encoded as JSON", "path", c.r.URL.Path, "err", err)
				return false
			}
		}
		idle.Reset(quiet)
		return write(append(out, '\n'))
	}
	return send, func() {
		close(done)
		wg.Wait()
	}
}

// endStream logs why a stream ended early. An error answer is not possible, because the status has been sent.
func (c *call) endStream(err error) {
	if c.r.Context().Err() == nil {
		c.Log.Error("stream ended early", "path", c.r.URL.Path, "err", err)
	}
}
