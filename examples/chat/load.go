package main

import (
	"context"
	"fmt"
	"time"

	"penstock/examples/chat/internal/weightfile"
)

// loadSteps is the number of parts in which the weights are read, so that memory grows over LOAD_SECONDS as in a real load.
const loadSteps = 100

// loadModel maps the weights and reads RESIDENT_BYTES of them into memory. It takes LOAD_SECONDS, or longer with a slow disk.
// If ctx ends meanwhile, that is not an error, because the process was told to end.
func (s *server) loadModel(ctx context.Context) error {
	m, err := weightfile.Open(s.cfg.ModelPath)
	if err != nil {
		return fmt.Errorf("MODEL_PATH: %w", err)
	}
	resident := s.cfg.ResidentBytes
	if resident == allOfIt {
		resident = m.Size
	}
	if resident > m.Size {
		_ = m.Close()
		return fmt.Errorf("RESIDENT_BYTES: want all or at most the %d bytes of %s, got %d", m.Size, s.cfg.ModelPath, resident)
	}
	s.log.Info("loading", "model", m.Name, "path", s.cfg.ModelPath, "weights_bytes", m.Size, "resident_bytes", resident)
	start := time.Now()
	var sum uint64
	for step := range int64(loadSteps) {
		if !sleepUntil(ctx, start.Add(s.cfg.LoadTime*time.Duration(step)/loadSteps)) {
			return m.Close()
		}
		sum += m.Touch(resident*step/loadSteps, resident*(step+1)/loadSteps)
	}
	if !sleepUntil(ctx, start.Add(s.cfg.LoadTime)) {
		return m.Close()
	}
	s.weights.Store(m)
	s.log.Info("ready", "model", m.Name, "seconds", rounded(time.Since(start).Seconds()), "rss_bytes", residentBytes(), "page_sum", sum)
	return nil
}

// unload unmaps the weights, if they were loaded.
func (s *server) unload() {
	if m := s.weights.Swap(nil); m != nil {
		if err := m.Close(); err != nil {
			s.log.Warn("unmap the weights; the end of the process will do it", "err", err)
		}
	}
}

// sleepUntil reports whether at came before the end of ctx.
func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
