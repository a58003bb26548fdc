package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"penstock/internal/load"
)

// events measures the delay of events that are sent every 50 ms, one stream at a time.
func (r *runner) events(ctx context.Context, i int) error {
	r.Progress("events: " + r.all[i].name)
	s, err := r.ask(ctx, i, load.Request{URL: "/events?n=20&every=50ms", Events: true, Stamped: true}, load.Plan{Clients: 1, Duration: r.Round})
	if err != nil {
		return err
	}
	if s.EventDelay == nil {
		return errors.New("no event came")
	}
	r.rows[i].EventDelay, r.rows[i].EventDelayP99 = s.EventDelay.P50, s.EventDelay.P99
	return nil
}

// streams opens many streams with one event per second each and measures the memory meanwhile.
func (r *runner) streams(ctx context.Context, i int) error {
	if r.Streams == 0 {
		return nil
	}
	r.Progress(fmt.Sprintf("%d streams: %s", r.Streams, r.all[i].name))
	stop := r.procs[i].peak()
	const each = 4 // events per stream
	s, err := r.ask(ctx, i, load.Request{URL: fmt.Sprintf("/events?n=%d&every=1s", each), Events: true, Stamped: true},
		load.Plan{Clients: r.Streams, Duration: time.Second})
	r.rows[i].StreamsMemory = stop()
	if err != nil {
		return err
	}
	r.rows[i].StreamsOpen = s.PeakOutstanding
	if s.Events < each*s.Succeeded {
		return fmt.Errorf("%d streams had %d events, want %d each", s.Succeeded, s.Events, each)
	}
	return nil
}

// idle opens connections, sends one request on each, and measures the memory while they are idle.
func (r *runner) idle(ctx context.Context, i int) error {
	if r.Idle == 0 {
		return nil
	}
	r.Progress(fmt.Sprintf("%d idle connections: %s", r.Idle, r.all[i].name))
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	in := bufio.NewReader(nil)
	for range r.Idle {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", r.procs[i].addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w; is the limit of open files too low (ulimit -n)?", len(conns)+1, err)
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
			return err
		}
		in.Reset(c)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
	}
	var err error
	r.rows[i].IdleOpen = len(conns)
	r.rows[i].IdleMemory, err = r.procs[i].memory()
	return err
}

// transfers uploads and downloads one large body.
func (r *runner) transfers(ctx context.Context, i int) error {
	if r.Transfer == 0 {
		return nil
	}
	row := &r.rows[i]
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
	defer client.CloseIdleConnections()
	for _, way := range []struct {
		what, method, path string
		rate, cpu          *float64
		memory             *int64
	}{
		{"upload", http.MethodPost, "/upload", &row.UploadRate, &row.UploadCPU, &row.UploadMemory},
		{"download", http.MethodGet, fmt.Sprintf("/download?bytes=%d", r.Transfer), &row.DownloadRate, &row.DownloadCPU, &row.DownloadMemory},
	} {
		r.Progress(fmt.Sprintf("%s of %d MB: %s", way.what, r.Transfer/1e6, row.Name))
		var body io.Reader
		if way.method == http.MethodPost {
			body = io.LimitReader(zeros{}, r.Transfer)
		}
		req, err := http.NewRequestWithContext(ctx, way.method, "http://"+r.procs[i].addr+way.path, body)
		if err != nil {
			return err
		}
		req.Host = host
		if body != nil {
			req.ContentLength = r.Transfer
		}
		before, err := r.procs[i].cpu()
		if err != nil {
			return err
		}
		stop, began := r.procs[i].peak(), time.Now()
		got, err := fetch(client, req)
		took := time.Since(began)
		*way.memory = stop()
		if err != nil {
			return err
		}
		if way.method == http.MethodGet && got != r.Transfer {
			return fmt.Errorf("download: got %d bytes, want %d", got, r.Transfer)
		}
		after, err := r.procs[i].cpu()
		if err != nil {
			return err
		}
		gb := float64(r.Transfer) / 1e9
		*way.rate, *way.cpu = gb*1e3/took.Seconds(), (after-before).Seconds()/gb
	}
	return nil
}

func fetch(client *http.Client, req *http.Request) (n int64, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s %s: %s", req.Method, req.URL.Path, resp.Status)
	}
	return io.Copy(io.Discard, resp.Body)
}
