package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penstock/internal/network/direct"
	"penstock/internal/resource"
)

// maxRedirects is the number of redirects that a probe follows, as in Kubernetes (pkg/probe/http).
const maxRedirects = 10

// maxBody limits how much of a probe's response is read. Kubernetes has the same limit.
const maxBody = 10 << 10

// errNothing is the failure of a probe without an action. Such a probe is rejected when a user writes it, but a record
// written by an earlier version may contain one.
var errNothing = errors.New("it has neither httpGet nor tcpSocket")

// errTimeout is the failure of a probe without a response in time.
var errTimeout = errors.New("timeout")

// ErrBusy is the failure of a probe without a response in time, while other requests received response data.
var ErrBusy = fmt.Errorf("%w while the replica was answering", errTimeout)

// statusError is an HTTP response with a status outside 200 to 399.
type statusError int

func (e statusError) Error() string { return "status code: " + strconv.Itoa(int(e)) }

// asker sends probes to one container. Connections always go to the replica's address. A host name in a probe only sets the
// Host header; the platform never connects to another machine.
type asker struct {
	addr   netip.Addr
	port   func(context.Context) (int, error) // resolves Detected
	dialer net.Dialer
	client *http.Client
}

func newAsker(addr netip.Addr, port func(context.Context) (int, error)) *asker {
	a := &asker{addr: addr, port: port, dialer: net.Dialer{Control: direct.Control}}
	a.client = &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:  true, // each probe also tests whether the container accepts connections
			DisableCompression: true,
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // as in Kubernetes: a probe checks health, not identity
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return a.dialer.DialContext(ctx, network, net.JoinHostPort(a.addr.String(), port))
			},
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			// A redirect to another host counts as a response below 400 and is not followed.
			if r.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return fmt.Errorf("stopped after %d redirects", maxRedirects)
			}
			return nil
		},
	}
	return a
}

// ask starts a probe. It returns what waits for the result, or nil and the result if that is known at once. The result is
// nil if the container responds within the timeout as the probe requires.
func (a *asker) ask(ctx context.Context, p resource.Probe) (wait func() error, err error) {
	var respond func(context.Context) error
	switch {
	case p.HTTP != nil:
		respond = func(ctx context.Context) error { return a.http(ctx, p.HTTP) }
	case p.TCP != nil:
		port := p.TCP.Port
		if port == Detected {
			if port, err = a.port(ctx); err != nil {
				return nil, err
			}
		}
		c, err := connect(netip.AddrPortFrom(a.addr, uint16(port)))
		if c == nil {
			return nil, err
		}
		respond = c.wait
	default:
		return nil, errNothing
	}
	return func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTimeout)
		defer cancel()
		err := respond(ctx)
		if err != nil && context.Cause(ctx) == errTimeout {
			return errTimeout
		}
		return err
	}, nil
}

func (a *asker) http(ctx context.Context, g *resource.HTTPGet) error {
	target := "http"
	if strings.EqualFold(g.Scheme, "https") {
		target = "https"
	}
	target += "://" + net.JoinHostPort(a.addr.String(), strconv.Itoa(g.Port)) + "/" + strings.TrimPrefix(g.Path, "/")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "penstock-probe")
	r.Header.Set("Accept", "*/*")
	r.Host = g.Host
	for _, h := range g.Headers {
		if strings.EqualFold(h.Name, "Host") {
			r.Host = h.Value
			continue
		}
		r.Header.Add(h.Name, h.Value)
	}
	resp, err := a.client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			return u.Err
		}
		return err
	}
	defer resp.Body.Close()
	// Do not wait for the end of the body: a streaming response shows that the container is alive.
	_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return statusError(resp.StatusCode)
	}
	return nil
}

// Message describes a probe failure in Azure's words.
func (v Verdict) Message() string {
	name := string(v.Check.Type)
	if v.Check.Type == resource.Startup {
		name = "StartUp" // Azure's spelling in its logs, and only there
	}
	if v.Loading > 0 {
		return fmt.Sprintf("%s probe failed while the container has not been ready yet: %s; not counted", v.Check.Type, v.cause())
	}
	if s, ok := errors.AsType[statusError](v.Err); ok {
		return fmt.Sprintf("Probe of %s failed with status code: %d; %s answered %d", name, int(s), v.request(), int(s))
	}
	if v.Busy > 0 {
		return fmt.Sprintf("%s probe timed out in %s seconds while the replica was answering; not counted", v.Check.Type, seconds(v.Check.Timeout))
	}
	if errors.Is(v.Err, errTimeout) {
		message := fmt.Sprintf("Probe of %s failed with timeout in %s seconds.", name, seconds(v.Check.Timeout))
		if v.Check.HTTP != nil {
			message += " " + v.request() + " had no answer"
		}
		return message
	}
	if errors.Is(v.Err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("Probe of %s failed: connection refused on port %d", name, v.port())
	}
	return fmt.Sprintf("Probe of %s failed: %v", name, v.Err)
}

// Hint says what can be wrong with a check whose port has answered for v.Open and that has not succeeded yet.
func (v Verdict) Hint() string {
	message := fmt.Sprintf("Port %d has answered for %s and no %s probe has succeeded: %s.", v.Check.HTTP.Port, v.Open.Round(time.Second),
		strings.ToLower(string(v.Check.Type)), v.cause())
	if s, ok := errors.AsType[statusError](v.Err); ok && s < 500 {
		return message + " It may never succeed; check the probe's path"
	}
	return message + " If the program is still loading, this is as it should be"
}

// request describes the request of an HTTP probe.
func (v Verdict) request() string {
	return fmt.Sprintf("GET /%s on port %d", strings.TrimPrefix(v.Check.HTTP.Path, "/"), v.Check.HTTP.Port)
}

// cause describes the error of a probe without the kind of the probe.
func (v Verdict) cause() string {
	switch s, ok := errors.AsType[statusError](v.Err); {
	case ok:
		return fmt.Sprintf("%s answered %d", v.request(), int(s))
	case errors.Is(v.Err, errTimeout):
		return fmt.Sprintf("no answer in %s seconds", seconds(v.Check.Timeout))
	case errors.Is(v.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("connection refused on port %d", v.port())
	}
	return v.Err.Error()
}

// port returns the port that refused the connection.
func (v Verdict) port() int {
	if op, ok := errors.AsType[*net.OpError](v.Err); ok {
		if at, ok := op.Addr.(*net.TCPAddr); ok {
			return at.Port
		}
	}
	return 0
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
