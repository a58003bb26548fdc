package build_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
)

// cutBody ends the connection after so many bytes.
type cutBody struct {
	io.ReadCloser
	left int
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func TestPushGoesOnWhereItWasCutOff(t *testing.T) {
	const size = 16 << 20
	weights := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(weights) // never fails
	files := map[string]string{
		"image.yaml": "layers:\n  - {name: weights, from: weights, to: /weights, compression: none}\nentrypoint: [/weights]\n",
		"weights":    string(weights),
	}
	tests := map[string]struct {
		cuts int32 // how many uploads in a row are cut
		left int   // bytes after which they are
	}{
		"once":                 {1, size * 6 / 10},
		"again and again":      {8, size / 10},
		"before anything came": {2, 0},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			s, p := newServer(t), newProject(t, files)
			var cuts, posts atomic.Int32
			before := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodPost {
					posts.Add(1)
				}
				if req.Method == http.MethodPatch && cuts.Add(1) <= tt.cuts {
					req.Body = &cutBody{req.Body, tt.left}
				}
			})
			s.before.Store(&before)
			result := p.build(t, s)
			if _, err := s.images.Resolve(t.Context(), "app:1"); err != nil {
				t.Error(err)
			}
			// What a connection still held when it was cut is sent again, and no more.
			if most := int64(size + size/2); tt.cuts == 1 && result.Moved > most {
				t.Errorf("%d bytes moved, want at most %d", result.Moved, most)
			}
			if got := posts.Load(); got > 2 {
				t.Errorf("%d uploads were begun, want one of the layer and one of the config", got)
			}
		})
	}
}
