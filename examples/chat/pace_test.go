package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	tests := map[string]struct {
		toFirst   time.Duration
		perSecond float64
		want      []time.Duration // when each token leaves
	}{
		"first token, then the rate":  {2 * time.Second, 4, []time.Duration{2000e6, 2250e6, 2500e6, 2750e6}},
		"no rate: all with the first": {300 * time.Millisecond, 0, []time.Duration{300e6, 300e6, 300e6}},
		"no wait at all":              {0, 0, []time.Duration{0, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c := newClock(tt.toFirst, tt.perSecond)
				var got []time.Duration
				for n := range tt.want {
					if err := c.wait(t.Context(), n); err != nil {
						t.Fatal(err)
					}
					got = append(got, time.Since(start))
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestClockCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := newClock(0, 10)
		time.Sleep(250 * time.Millisecond) // a client that read slowly
		for n := range 4 {
			if err := c.wait(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got != 300*time.Millisecond {
			t.Errorf("token 3 left after %s, want 300ms", got)
		}
	})
}

func TestClockEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		time.AfterFunc(time.Second, func() { cancel(gone) })
		start := time.Now()
		err := newClock(time.Hour, 1).wait(ctx, 0)
		if !errors.Is(err, gone) || time.Since(start) != time.Second {
			t.Errorf("got %v after %s, want gone after 1s", err, time.Since(start))
		}
	})
}
