package azure_test

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// recorder keeps what a server answers, in front of a client's transport.
type recorder struct {
	next http.RoundTripper

	mu     sync.Mutex
	paused bool
	all    bytes.Buffer
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.paused {
		_ = resp.Header.Write(&r.all) // to memory
		r.all.Write(body)
	}
	return resp, nil
}

func (r *recorder) pause(paused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = paused
}

func (r *recorder) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.all.Bytes())
}
