package arm

import (
	"fmt"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/resource"
)

// requestLine is the record of a request, with the columns of Azure's table ContainerAppHTTPLogs. HeldMs and FirstByteMs
// are additions.
type requestLine struct {
	TimeGenerated               time.Time `json:"TimeGenerated"`
	StartTime                   time.Time `json:"StartTime"`
	Method                      string    `json:"Method"`
	Path                        string    `json:"Path"`
	Authority                   string    `json:"Authority"`
	Protocol                    string    `json:"Protocol"`
	UserAgent                   string    `json:"UserAgent"`
	XForwardedFor               string    `json:"XForwardedFor"`
	BytesReceived               int64     `json:"BytesReceived"`
	BytesSent                   int64     `json:"BytesSent"`
	StatusCode                  int       `json:"StatusCode"`
	ResponseCodeDetails         string    `json:"ResponseCodeDetails"`
	ResponseFlags               string    `json:"ResponseFlags"`
	RequestDuration             int64     `json:"RequestDuration"` // ms
	RequestID                   string    `json:"RequestId"`
	ConnectionID                uint64    `json:"ConnectionId"`
	ContainerAppName            string    `json:"ContainerAppName"`
	RevisionName                string    `json:"RevisionName"`
	ReplicaName                 string    `json:"ReplicaName"`
	EnvironmentName             string    `json:"EnvironmentName"`
	UpstreamHost                string    `json:"UpstreamHost"`
	UpstreamRequestAttemptCount int       `json:"UpstreamRequestAttemptCount"`
	EnvoyPodName                string    `json:"EnvoyPodName"` // the process of the ingress
	HeldMs                      float64   `json:"HeldMs"`
	FirstByteMs                 float64   `json:"FirstByteMs"`
	DurationMs                  float64   `json:"DurationMs"`
}

// streamRequests sends the access records of an app.
func streamRequests(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	q, err := readStreamQuery(query)
	if err != nil {
		return err
	}
	send, end := c.startStream(q)
	defer end()
	records := accesslog.Read(c.r.Context(), c.Requests, accesslog.Query{
		App: found.ID.String(), Revision: query.Get("revision"), Replica: query.Get("replica"), Tail: q.tail, Follow: q.follow,
		Log: c.Log,
	})
	for r, err := range records {
		if err != nil {
			c.endStream(err)
			return nil
		}
		line := requestLineOf(&r, found)
		text := fmt.Sprintf("%s %s %s %d %dms", line.TimeGenerated.Format(time.RFC3339Nano), line.Method, line.Path, line.StatusCode, line.RequestDuration)
		if !send(text, line) {
			return nil
		}
	}
	return nil
}

func requestLineOf(r *accesslog.Record, app resource.App) requestLine {
	line := requestLine{
		TimeGenerated: r.End().UTC(), StartTime: r.Start.UTC(), Method: r.Method, Path: r.Path, Authority: r.Host, Protocol: r.Proto,
		UserAgent: r.UserAgent, XForwardedFor: r.Forwarded, BytesReceived: r.BytesIn, BytesSent: r.BytesOut, StatusCode: r.Status,
		ResponseCodeDetails: r.Details(), ResponseFlags: r.Flags.String(), RequestDuration: r.Duration.Milliseconds(),
		RequestID: r.RequestID, ConnectionID: r.Connection, ContainerAppName: app.ID.Base(), ReplicaName: r.Replica,
		EnvironmentName: app.Environment.Base(), UpstreamHost: r.Upstream, UpstreamRequestAttemptCount: r.Attempts, EnvoyPodName: r.Ingress,
		HeldMs: milliseconds(r.Held), FirstByteMs: milliseconds(r.FirstByte), DurationMs: milliseconds(r.Duration),
	}
	if id, err := resource.ParseID(r.Revision); err == nil { // empty for a request that was redirected
		line.RevisionName = id.Base()
	}
	return line
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
