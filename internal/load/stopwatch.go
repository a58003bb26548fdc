package load

import "time"

// stopwatch tells the time of a run.
type stopwatch struct{ start time.Time }

func (s *stopwatch) now() time.Duration              { return time.Since(s.start) }
func (s *stopwatch) wall(at time.Duration) time.Time { return s.start.Add(at) }
