package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// apiVersion is the newest stable version of Microsoft.App that this client was written against.
const apiVersion = "2025-01-01"

// Client is a client of the management API.
type Client struct {
	endpoint *url.URL
	token    string
	http     *http.Client
	tell     func() // called before each change; nil: nothing
}

// maxAnswer limits the size of a response. A list of 10,000 apps takes about 30 MB.
const maxAnswer = 64 << 20

func newClient(endpoint, ca, token string) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint: want https://HOST:PORT, got %q", endpoint)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: no certificate in %s", ca)
		}
	}
	return &Client{
		endpoint: u,
		token:    token,
		// There is no time limit for a whole response, as logs are followed for hours. The context of each call limits it.
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
			MaxIdleConns:      4,
			IdleConnTimeout:   30 * time.Second,
		}},
	}, nil
}

// Detail is one of the faults of a request.
type Detail struct {
	Code    string `json:"code"`
	Target  string `json:"target"`
	Message string `json:"message"`
}

func (d Detail) String() string {
	if d.Target == "" {
		return d.Message
	}
	return d.Target + ": " + d.Message
}

// APIError is an error response of the server.
type APIError struct {
	Status  int
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Details []Detail `json:"details"`
}

func (e *APIError) Error() string {
	return cmp.Or(e.Message, e.Code, strconv.Itoa(e.Status)+" "+http.StatusText(e.Status))
}

// errorOf reads the error in an ARM response body. It returns nil if there is none.
func errorOf(status int, body []byte) *APIError {
	var b struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(body, &b); err != nil || b.Error == nil {
		return nil
	}
	b.Error.Status = status
	return b.Error
}

// do sends a request and returns the response if its status is a success. target is a path below the endpoint, or a full
// URL of the endpoint.
func (c *Client) do(ctx context.Context, method, target string, query url.Values, body []byte) (*http.Response, error) {
	contentType := ""
	if body != nil {
		contentType = "application/json"
	}
	return c.send(ctx, method, target, query, bytes.NewReader(body), contentType)
}

// send is like do, with a body of any type and length.
func (c *Client) send(ctx context.Context, method, target string, query url.Values, body io.Reader, contentType string) (*http.Response, error) {
	u, err := c.endpoint.Parse(target)
	if err != nil {
		return nil, err
	}
	if u.Host != c.endpoint.Host || u.Scheme != c.endpoint.Scheme {
		return nil, fmt.Errorf("the server redirected to %s, which is another server; the token is not sent there", u.Redacted())
	}
	if query != nil {
		u.RawQuery = query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if c.tell != nil && method != http.MethodGet && method != http.MethodHead && !strings.HasSuffix(u.Path, "/listSecrets") {
		c.tell()
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, hint(fmt.Errorf("no server responds at %s", c.endpoint), "penstock up\nor choose another data folder with --data or PENSTOCK_DATA")
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read response %s: %w", resp.Status, err)
	}
	if e := errorOf(resp.StatusCode, b); e != nil {
		return nil, e
	}
	return nil, &APIError{Status: resp.StatusCode, Message: fmt.Sprintf("%s %s: %s %s", method, u.Path, resp.Status, bytes.TrimSpace(b[:min(len(b), 200)]))}
}

// callLimit is the time limit of every call whose response is not a stream.
const callLimit = time.Minute

// get sends a GET request and reads the whole response.
func (c *Client) get(ctx context.Context, target string, query url.Values) (json.RawMessage, error) {
	_, b, err := c.call(ctx, http.MethodGet, target, query, nil)
	return b, err
}

func (c *Client) call(ctx context.Context, method, target string, query url.Values, body []byte) (*http.Response, json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	resp, err := c.do(ctx, method, target, query, body)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("read response: %w", err)
	}
	return resp, b, nil
}

// version returns the query that every ARM call needs.
func version() url.Values { return url.Values{"api-version": {apiVersion}} }

// list reads all pages of a list.
func (c *Client) list(ctx context.Context, path string) ([]json.RawMessage, error) {
	all := []json.RawMessage{}
	target, query := path, version()
	for target != "" {
		b, err := c.get(ctx, target, query)
		if err != nil {
			return nil, err
		}
		var page struct {
			Value    []json.RawMessage `json:"value"`
			NextLink string            `json:"nextLink"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, fmt.Errorf("read list: %w", err)
		}
		all = append(all, page.Value...)
		target, query = page.NextLink, nil
	}
	return all, nil
}

// Intervals for polling a long-running operation. The server is near, so the first polls are earlier than its
// Retry-After, which is meant for Azure's clients.
const (
	firstPoll = 50 * time.Millisecond
	lastPoll  = 250 * time.Millisecond
)

// begin starts a change and returns a function that waits for its end, or nil if the change is already done.
func (c *Client) begin(ctx context.Context, method, path string, body []byte) (wait func(context.Context) error, err error) {
	resp, _, err := c.call(ctx, method, path, version(), body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && method != http.MethodPut || resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	if operation := resp.Header.Get("Azure-AsyncOperation"); operation != "" {
		return func(ctx context.Context) error { return c.operation(ctx, operation) }, nil
	}
	if location := resp.Header.Get("Location"); location != "" && resp.StatusCode == http.StatusAccepted {
		return func(ctx context.Context) error { return c.location(ctx, location) }, nil
	}
	return nil, nil
}

// patch changes a part of a resource's properties and waits until the change is done.
func (c *Client) patch(ctx context.Context, path string, properties map[string]any) error {
	body, err := json.Marshal(map[string]any{"properties": properties})
	if err != nil {
		return err
	}
	return c.change(ctx, http.MethodPatch, path, body)
}

// change starts a change and waits for its end.
func (c *Client) change(ctx context.Context, method, path string, body []byte) error {
	wait, err := c.begin(ctx, method, path, body)
	if err != nil || wait == nil {
		return err
	}
	return wait(ctx)
}

func (c *Client) operation(ctx context.Context, target string) error {
	return poll(ctx, func() (bool, error) {
		b, err := c.get(ctx, target, nil)
		if err != nil {
			return false, err
		}
		var o struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(b, &o); err != nil {
			return false, fmt.Errorf("read operation: %w", err)
		}
		switch o.Status {
		case "Succeeded":
			return true, nil
		case "Failed", "Canceled":
			if e := errorOf(http.StatusConflict, b); e != nil {
				return false, e
			}
			return false, fmt.Errorf("the operation ended as %s", o.Status)
		}
		return false, nil
	})
}

func (c *Client) location(ctx context.Context, target string) error {
	return poll(ctx, func() (bool, error) {
		resp, _, err := c.call(ctx, http.MethodGet, target, nil, nil)
		if err != nil {
			return false, err
		}
		return resp.StatusCode != http.StatusAccepted, nil
	})
}

// poll calls ask until it returns true or an error, or ctx ends. The wait before each call grows.
func poll(ctx context.Context, ask func() (bool, error)) error {
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		done, err := ask()
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lines reads a stream of JSON lines until the stream ends, take returns false, or ctx ends.
func (c *Client) lines(ctx context.Context, path string, query url.Values, take func(json.RawMessage) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue // the server sends empty lines to keep the connection open
		}
		if err := take(bytes.Clone(in.Bytes())); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read stream: %w", err)
	}
	return nil
}
