package load

import "time"

// stopwatch measures the time since the start of a run.
type stopwatch struct{ start time.Time }

func (s *stopwatch) now() time.Duration              { return time.Since(s.start) }
func (s *stopwatch) wall(at time.Duration) time.Time { return s.start.Add(at) }
