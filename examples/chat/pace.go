package main

import (
	"context"
	"time"
)

// pacer decides when the tokens of one generation are sent.
type pacer interface {
	// wait returns when token n, counted from 0, is due, or with the reason why ctx ended.
	wait(ctx context.Context, n int) error
}

// clock paces by time: a delay before the first token, then a rate. Each token's time counts from the start, so a late token
// does not delay the others.
type clock struct {
	first time.Time
	each  time.Duration
}

// newClock starts now. With perSecond 0 all tokens are due with the first.
func newClock(toFirst time.Duration, perSecond float64) clock {
	c := clock{first: time.Now().Add(toFirst)}
	if perSecond > 0 {
		c.each = time.Duration(float64(time.Second) / perSecond)
	}
	return c
}

func (c clock) wait(ctx context.Context, n int) error {
	if !sleepUntil(ctx, c.first.Add(time.Duration(n)*c.each)) {
		return context.Cause(ctx)
	}
	return nil
}
