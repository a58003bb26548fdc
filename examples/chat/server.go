package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"penstock/examples/chat/internal/weightfile"
)

// idleLimit is longer than the 240 s for which Container Apps' ingress keeps an idle connection, so the
// ingress closes first and never sends a request into a connection that is just being closed.
const idleLimit = 5 * time.Minute

// server answers HTTP before, while and after its weights load.
type server struct {
	cfg      config
	log      *slog.Logger
	newPacer func() pacer // called for each generation when it gets its slot

	slots   *slots
	faults  *faults
	leak    leak
	counts  counts
	started time.Time
	weights atomic.Pointer[weightfile.Map] // nil until loaded
}

func newServer(cfg config, log *slog.Logger, newPacer func() pacer) *server {
	return &server{
		cfg: cfg, log: log, newPacer: newPacer,
		slots: newSlots(cfg.Slots, cfg.QueueLimit), faults: newFaults(), started: time.Now(),
	}
}

// run loads the weights and serves, in the order that PORT_WHILE_LOADING sets, until ctx ends. Then it drains.
func (s *server) run(ctx context.Context) error {
	defer s.unload()
	if s.cfg.WhileLoading == closed {
		if err := s.loadModel(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(s.cfg.Port)))
	if err != nil {
		return fmt.Errorf("PORT: open %d: %w", s.cfg.Port, err)
	}
	s.log.Info("listening", "addr", ln.Addr().String())

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       idleLimit,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var (
		wg               sync.WaitGroup
		loadErr, exitErr error
	)
	if s.cfg.WhileLoading == answer503 {
		wg.Go(func() {
			if loadErr = s.loadModel(ctx); loadErr != nil {
				stop(loadErr)
			}
		})
	}
	wg.Go(func() { exitErr = s.end(ctx, srv) })
	err = srv.Serve(ln)
	stop(err) // Serve may have failed by itself
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(loadErr, err, exitErr)
}

// end waits until the server must end, and ends it: at once in a crash, otherwise after the requests in flight.
func (s *server) end(ctx context.Context, srv *http.Server) error {
	select {
	case code := <-s.faults.crashed:
		s.log.Error("crashing on demand", "code", code)
		return errors.Join(&crashError{code}, srv.Close())
	case <-ctx.Done():
	}
	// A hanging process ignores SIGTERM too; SIGKILL ends it.
	_ = s.faults.wait(context.WithoutCancel(ctx))
	s.log.Info("draining", "cause", context.Cause(ctx).Error(), "limit_seconds", s.cfg.DrainTime.Seconds())
	limited, done := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTime)
	defer done()
	if err := srv.Shutdown(limited); err != nil {
		return errors.Join(fmt.Errorf("drain: requests still under way after %s: %w", s.cfg.DrainTime, err), srv.Close())
	}
	return nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, h handler) { mux.Handle(path, s.serve(method, h)) }
	handle(http.MethodGet, "/v1/models", s.models)
	handle(http.MethodGet, "/v1/models/{id}", s.oneModel)
	handle(http.MethodPost, "/v1/chat/completions", s.complete)
	handle(http.MethodGet, "/health", s.health)
	handle(http.MethodGet, "/metrics", s.metrics)
	handle(http.MethodPost, "/debug/crash", s.crash)
	handle(http.MethodPost, "/debug/hang", s.hang)
	handle("", "/", func(_ *response, r *http.Request) error {
		return &apiError{Status: http.StatusNotFound, Type: invalidRequest, Code: "not_found",
			Message: fmt.Sprintf("there is nothing at %s; want POST /v1/chat/completions, GET /v1/models, GET /health or GET /metrics", r.URL.Path)}
	})
	return mux
}

// health reports whether completions can be requested: 503 while loading, like llama.cpp's server.
func (s *server) health(w *response, _ *http.Request) error {
	if s.weights.Load() == nil {
		w.retryAfter(time.Second)
		return w.json(http.StatusServiceUnavailable, map[string]any{
			"error": map[string]any{"code": http.StatusServiceUnavailable, "message": "Loading model", "type": "unavailable_error"},
		})
	}
	return w.json(http.StatusOK, map[string]string{"status": "ok"})
}

// loaded returns the weights, or an error if they are not loaded yet.
func (s *server) loaded(w *response) (*weightfile.Map, error) {
	if m := s.weights.Load(); m != nil {
		return m, nil
	}
	w.retryAfter(time.Second)
	return nil, &apiError{Status: http.StatusServiceUnavailable, Type: "unavailable_error", Code: "model_loading",
		Message: "the model is loading; GET /health tells when it is there"}
}
