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

	"penstock/internal/resource"
)

// maxRedirects is Kubernetes' bound on the redirects that a probe follows (pkg/probe/http).
const maxRedirects = 10

// maxBody bounds what is read of a probe's answer; more of it is of no interest (Kubernetes reads as much).
const maxBody = 10 << 10

// errNothing is the answer to a probe that asks nothing. What a user sends is checked long before; a record that an
// earlier version wrote is not.
var errNothing = errors.New("it has neither httpGet nor tcpSocket")

// errTimeout is the answer that did not come in time.
var errTimeout = errors.New("timeout")

// ErrBusy is the answer that did not come in time while others got bytes of theirs.
var ErrBusy = fmt.Errorf("%w while the replica was answering", errTimeout)

// statusError is an HTTP answer outside 200 to 399.
type statusError int

func (e statusError) Error() string { return "status code: " + strconv.Itoa(int(e)) }

// asker asks one container. Connections always go to the replica's address: a host name in a probe is what the request
// says, never another machine for the platform to call.
type asker struct {
	addr   netip.Addr
	port   func(context.Context) (int, error) // of Detected
	dialer net.Dialer
	client *http.Client
}

func newAsker(addr netip.Addr, port func(context.Context) (int, error)) *asker {
	a := &asker{addr: addr, port: port}
	a.client = &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:  true, // each question is about accepting connections too
			DisableCompression: true,
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // as Kubernetes: it asks for life, not for identity
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return a.dialer.DialContext(ctx, network, net.JoinHostPort(a.addr.String(), port))
			},
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			// A redirect to elsewhere is an answer (below 400), not a place to go.
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

// ask returns nil when the container answers as the probe wants within its timeout.
func (a *asker) ask(ctx context.Context, p resource.Probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTimeout)
	defer cancel()
	var err error
	switch {
	case p.HTTP != nil:
		err = a.http(ctx, p.HTTP)
	case p.TCP != nil:
		err = a.tcp(ctx, p.TCP)
	default:
		err = errNothing
	}
	if err != nil && context.Cause(ctx) == errTimeout {
		return errTimeout
	}
	return err
}

func (a *asker) tcp(ctx context.Context, t *resource.TCPSocket) error {
	port := t.Port
	if port == Detected {
		var err error
		if port, err = a.port(ctx); err != nil {
			return err
		}
	}
	conn, err := a.dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.addr.String(), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
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
	// The end of the body is not waited for: a page that streams is alive.
	_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return statusError(resp.StatusCode)
	}
	return nil
}

// Message says in Azure's words what a failed answer was.
func (v Verdict) Message() string {
	name := string(v.Check.Type)
	if v.Check.Type == resource.Startup {
		name = "StartUp" // Azure's spelling in its logs, and only there
	}
	if s, ok := errors.AsType[statusError](v.Err); ok {
		return fmt.Sprintf("Probe of %s failed with status code: %d", name, int(s))
	}
	if v.Busy > 0 {
		return fmt.Sprintf("%s probe timed out in %s seconds while the replica was answering; not counted", v.Check.Type, seconds(v.Check.Timeout))
	}
	if errors.Is(v.Err, errTimeout) {
		return fmt.Sprintf("Probe of %s failed with timeout in %s seconds.", name, seconds(v.Check.Timeout))
	}
	if errors.Is(v.Err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("Probe of %s failed: connection refused on port %d", name, v.port())
	}
	return fmt.Sprintf("Probe of %s failed: %v", name, v.Err)
}

// port is the one that refused the connection.
func (v Verdict) port() int {
	if op, ok := errors.AsType[*net.OpError](v.Err); ok {
		if at, ok := op.Addr.(*net.TCPAddr); ok {
			return at.Port
		}
	}
	return 0
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
