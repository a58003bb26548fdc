package main

import (
	"context"
	"time"
)

// pacer says when the tokens of one generation may leave.
type pacer interface {
	// wait returns when token n, counted from 0, is due, or with the reason why ctx ended.
	wait(ctx context.Context, n int) error
}

// clock paces by time: the first token after a while, then so many a second. Each token's time is counted from the
// start, so one that left late does not delay the rest.
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
