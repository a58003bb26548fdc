package oci_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
	"penstock/internal/oci/remote"
)

// older moves all times stored for every image back.
func (s *server) older(t testing.TB, by time.Duration) {
	t.Helper()
	ctx := inStore(t.Context())
	records, err := s.stores.Images.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		for label, value := range record.Labels {
			if at, err := time.Parse(time.RFC3339, value); err == nil {
				record.Labels[label] = at.Add(-by).Format(time.RFC3339)
			}
		}
		if _, err := s.stores.Images.Update(ctx, record, "labels"); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *server) names(t testing.TB) (names []string) {
	t.Helper()
	list, err := s.images.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range list {
		names = append(names, image.Name)
	}
	return names
}

func TestPrune(t *testing.T) {
	from, s := newUpstream(t, nil), newServer(t)
	needed := map[digest.Digest]bool{}
	var blind error
	s.stores.Needed = func(context.Context) (map[digest.Digest]bool, error) { return needed, blind }
	s.stores.Freed = func() {}
	s.images = oci.NewImages(s.stores)
	s.open(t)
	collector := oci.NewCollector(s.stores, oci.Policy{}, nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
	prune := func(o oci.Prune) (names []string, bytes int64) {
		t.Helper()
		done, err := collector.Prune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range done.Images {
			names = append(names, one.Name)
		}
		slices.Sort(names)
		return names, done.Bytes
	}
	old, new := newImage(t, runtime.GOARCH, "weights", "old code"), newImage(t, runtime.GOARCH, "weights", "new code")
	s.push(t, "app:1", old)
	s.push(t, "app:1", new)
	from.push(t, "pulled:1", newImage(t, runtime.GOARCH, "weights", "pulled code"))
	pulled := from.host + "/pulled:1"
	if _, _, err := newPuller(t, s, remote.Config{}).Pull(t.Context(), pulled, remote.Login{}); err != nil {
		t.Fatal(err)
	}
	oldName := "app@" + digestOf(t, old)

	if names, _ := prune(oci.Prune{}); names != nil {
		t.Errorf("what is seconds old went: %v", names)
	}
	s.older(t, 10*time.Minute)
	// A revision uses the old image.
	needed[digest.Digest(digestOf(t, old))] = true
	if names, _ := prune(oci.Prune{DryRun: true}); !slices.Equal(names, []string{pulled}) {
		t.Errorf("a dry run: got %v, want %s", names, pulled)
	}
	policy := oci.Policy{Superseded: time.Hour, Unused: time.Hour}
	if names, _ := prune(oci.Prune{Policy: policy}); names != nil {
		t.Errorf("before their time went %v", names)
	}
	blind = errors.New("the database is away")
	if _, err := collector.Prune(t.Context(), oci.Prune{All: true}); !errors.Is(err, blind) {
		t.Errorf("a prune that does not know what must stay: got %v", err)
	}
	blind = nil
	policy.Limit = 1
	if names, _ := prune(oci.Prune{Policy: policy}); !slices.Equal(names, []string{pulled}) {
		t.Errorf("above the limit: got %v, want %s", names, pulled)
	}
	s.collect(t)
	if s.has(t, digest.FromString("pulled code").String()) || !s.has(t, digest.FromString("old code").String()) || !s.has(t, digest.FromString("weights").String()) {
		t.Error("want the layer of the pulled image gone and no other")
	}
	// The user deletes the tag. The revision keeps both images.
	needed[digest.Digest(digestOf(t, new))] = true
	if err := s.images.Delete(t.Context(), "app:1"); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	if got := s.names(t); len(got) != 2 || !slices.Contains(got, oldName) {
		t.Errorf("after the delete of the tag: got %v, want both by their digests", got)
	}
	clear(needed)
	s.older(t, 2*time.Hour)
	names, bytes := prune(oci.Prune{Policy: oci.Policy{Superseded: time.Hour}})
	if len(names) != 2 || bytes < int64(len("weights")) {
		t.Errorf("once no revision needs them: %v, %d bytes", names, bytes)
	}
	s.push(t, "kept:1", newImage(t, runtime.GOARCH, "kept"))
	s.older(t, time.Hour)
	if names, _ := prune(oci.Prune{}); names != nil {
		t.Errorf("what has its tag went: %v", names)
	}
	if names, _ := prune(oci.Prune{All: true}); !slices.Equal(names, []string{"kept:1"}) {
		t.Errorf("all: got %v", names)
	}
}
