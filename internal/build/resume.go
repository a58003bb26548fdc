package build

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// resumes limits how often in a row a layer's upload is resumed without progress.
	resumes = 5
	// resumePause is the first pause between such tries. It doubles each time.
	resumePause = 200 * time.Millisecond
)

// resume continues the upload of a layer after its connection was lost, from the byte that the registry asks for.
func (w *wire) resume(req *http.Request, lost error) (*http.Response, error) {
	before, pause := int64(0), resumePause
	for tries := 0; tries < resumes; tries++ {
		select {
		case <-time.After(pause):
			pause *= 2
		case <-req.Context().Done():
			return nil, lost
		}
		at, err := w.uploaded(req)
		if err != nil {
			lost = err
			continue
		}
		if at > before {
			before, tries, pause = at, 0, resumePause
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, body, at); err != nil {
			return nil, errors.Join(fmt.Errorf("the registry has %d bytes of it, more than there are: %w", at, err), body.Close())
		}
		rest := req.Clone(req.Context())
		rest.Body = body
		if w.moved != nil {
			rest.Body = &countedBody{ReadCloser: body, moved: w.moved}
		}
		if rest.ContentLength > 0 {
			rest.ContentLength -= at
		}
		resp, err := w.next.RoundTrip(rest)
		if err == nil {
			return resp, nil
		}
		lost = err
	}
	return nil, lost
}

// uploaded asks the registry how much of an upload has arrived. The registry responds once the lost request has ended there.
func (w *wire) uploaded(req *http.Request) (int64, error) {
	ask, err := http.NewRequestWithContext(req.Context(), http.MethodGet, req.URL.String(), nil)
	if err != nil {
		return 0, err
	}
	ask.Header = req.Header.Clone()
	for _, of := range []string{"Content-Type", "Content-Length", "Content-Range"} {
		ask.Header.Del(of)
	}
	resp, err := w.next.RoundTrip(ask)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, last, ok := strings.Cut(resp.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if resp.StatusCode != http.StatusNoContent || !ok || err != nil || n < 0 {
		return 0, fmt.Errorf("how far the upload is: want 204 with a Range, got %s with %q", resp.Status, resp.Header.Get("Range"))
	}
	if n == 0 {
		return 0, nil // the header cannot express "nothing yet"
	}
	return n + 1, nil
}
