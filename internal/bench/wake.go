package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// WakeOptions say which apps Wake wakes.
type WakeOptions struct {
	// Options are those of `runc run`, which is measured beside the apps.
	Options
	// Apps are at zero or on their way to it. They answer GET / with 200.
	Apps []WakeApp
	// Asleep returns when an app has no replica and its standby, if it is to have one, is ready.
	Asleep func(ctx context.Context, app WakeApp) error
}

// WakeApp is an app that goes to zero soon after each request.
type WakeApp struct {
	Standby string // "created", "paused" or "none"
	Name    string
	Host    string // of the request
	Ingress string // address to connect to
}

// WakeResult is what a request to an app at zero takes.
type WakeResult struct {
	Wakes []WakeTimes
	// Runc is `runc run` of the same program until its first 200: root file system and network made before.
	Runc Stats
	// Left lists what the measurement of runc left behind.
	Left []string
}

// WakeTimes are those of one kind of standby, from the first byte of a request into the ingress to the last of its response.
type WakeTimes struct {
	Standby string
	Stats
	RatioP50, RatioP95, RatioP99 float64 // to runc
}

// Wake times requests that wake an app, and `runc run`, one after the other, so that all see the same machine.
func Wake(ctx context.Context, o WakeOptions) (result WakeResult, err error) {
	lab, err := openLab(ctx, o.Options)
	if err != nil {
		return WakeResult{}, fmt.Errorf("bench wake: %w", err)
	}
	defer func() {
		if end := lab.close(context.WithoutCancel(ctx)); end != nil {
			err = errors.Join(err, fmt.Errorf("bench wake: %w", end))
		}
	}()
	bare, err := lab.bareRunc(ctx)
	if err != nil {
		return WakeResult{}, fmt.Errorf("bench wake: %w", err)
	}
	wakes := make([][]time.Duration, len(o.Apps))
	var floor []time.Duration
	for i := range o.Warmup + o.Cycles {
		// All first, so that no wake is timed while another app goes to zero.
		for _, app := range o.Apps {
			if err := o.Asleep(ctx, app); err != nil {
				return WakeResult{}, fmt.Errorf("bench wake: cycle %d: %s: %w", i, app.Name, err)
			}
		}
		for turn := range o.Apps {
			n := (i + turn) % len(o.Apps)
			app := o.Apps[n]
			took, err := app.Wake(ctx)
			if err != nil {
				return WakeResult{}, fmt.Errorf("bench wake: cycle %d: %s: %w", i, app.Name, err)
			}
			if i >= o.Warmup {
				wakes[n] = append(wakes[n], took)
			}
		}
		took, err := bare.cycle(ctx, i)
		if err != nil {
			return WakeResult{}, fmt.Errorf("bench wake: runc cycle %d: %w", i, err)
		}
		if i < o.Warmup {
			continue
		}
		floor = append(floor, took)
		if o.Progress != nil {
			o.Progress(i+1-o.Warmup, o.Cycles)
		}
	}
	result.Runc = statsOf(floor)
	for n, app := range o.Apps {
		s := statsOf(wakes[n])
		result.Wakes = append(result.Wakes, WakeTimes{app.Standby, s, ratio(s.P50, result.Runc.P50), ratio(s.P95, result.Runc.P95), ratio(s.P99, result.Runc.P99)})
	}
	if err := bare.remove(ctx); err != nil {
		return result, fmt.Errorf("bench wake: %w", err)
	}
	result.Left, err = lab.left(ctx)
	return result, err
}

// wakeLimit bounds one wake.
const wakeLimit = time.Minute

// Wake sends a request over a connection that is open already, and returns how long the answer took.
func (a WakeApp) Wake(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, wakeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.Ingress)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Host+"/", nil)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := request.Write(conn); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("want 200, got %s: %.200s", response.Status, body)
	}
	return took, nil
}
