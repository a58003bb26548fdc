package memoryadvice_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"penstock/internal/memoryadvice"
	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/weights"
)

// store has images with a model file each, of the given size.
type store map[string]int64

func (s store) Resolve(_ context.Context, name string) (oci.Image, error) {
	if _, ok := s[name]; !ok {
		return oci.Image{}, oci.ErrNotFound
	}
	return oci.Image{Name: name}, nil
}

func (s store) Weights(_ context.Context, image oci.Image) ([]weights.File, error) {
	switch size := s[image.Name]; {
	case size < 0:
		return nil, errors.New("layer is damaged")
	case size == 0:
		return nil, nil
	default:
		return []weights.File{{
			Path: "models/m.safetensors", Format: weights.Safetensors, Size: size,
			Parts: []weights.Part{{Type: "F16", Parameters: size / 2, Bytes: size}},
		}}, nil
	}
}

func revision(memory int64, images ...string) resource.Revision {
	r := resource.Revision{ID: resource.AppID("s", "g", "chat").Child("revisions", "chat--1")}
	for i, image := range images {
		r.Template.Containers = append(r.Template.Containers, resource.Container{
			Name: string(rune('a' + i)), Image: image, Resources: resource.Resources{Memory: memory},
		})
	}
	return r
}

func TestWarning(t *testing.T) {
	const gib = 1 << 30
	images := store{"big:1": 2 * gib, "huge:1": 20 * gib, "none:1": 0, "bad:1": -1}
	tests := map[string]struct {
		revision resource.Revision
		want     []string // substrings of each event's message
	}{
		"enough memory":                     {revision(4*gib, "big:1"), nil},
		"no model":                          {revision(1*gib, "none:1"), nil},
		"no memory limit":                   {revision(0, "big:1"), nil},
		"image has gone":                    {revision(1*gib, "gone:1"), nil},
		"too little names the next size":    {revision(1*gib, "big:1"), []string{"Container 'a': ", "1.25 vCPU with 2.5Gi would do"}},
		"too large for Consumption":         {revision(1*gib, "huge:1"), []string{"a Dedicated one with 24 GiB would do"}},
		"a container after a damaged image": {revision(1*gib, "bad:1", "gone:1", "big:1"), []string{"Container 'c': "}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []resource.Event
				advisor := memoryadvice.New(images, func(e resource.Event) { got = append(got, e) }, slog.New(slog.DiscardHandler))
				advisor.Created(test.revision)
				ctx, stop := context.WithCancel(t.Context())
				go advisor.Run(ctx)
				synctest.Wait()
				stop()
				synctest.Wait()
				if len(test.want) == 0 {
					if len(got) != 0 {
						t.Fatalf("got %v, want no event", got)
					}
					return
				}
				if len(got) != 1 {
					t.Fatalf("got %d events, want 1: %v", len(got), got)
				}
				e := got[0]
				if !e.Warning || e.Reason != "MemoryBelowWeights" || e.Revision != "chat--1" || e.App.Base() != "chat" {
					t.Errorf("got %+v, want a warning about revision chat--1 of chat", e)
				}
				for _, part := range test.want {
					if !strings.Contains(e.Message, part) {
						t.Errorf("message %q: want %q in it", e.Message, part)
					}
				}
			})
		})
	}
}

func TestCreatedNeverBlocks(t *testing.T) {
	advisor := memoryadvice.New(store{}, func(resource.Event) {}, slog.New(slog.DiscardHandler))
	for range 1000 { // nobody receives, so a call that blocks would be a deadlock
		advisor.Created(revision(1<<30, "big:1"))
	}
}
