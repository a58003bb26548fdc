package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// drainLimit is how long requests in flight may take after SIGTERM. Container Apps kills a container after 30 s by default.
	drainLimit = 25 * time.Second
	// idleLimit is longer than the 240 s for which Container Apps' ingress keeps an idle connection, so the
	// ingress closes first and never sends a request into a connection that is just being closed.
	idleLimit = 5 * time.Minute
)

// model detects the language of texts. Its methods are safe for concurrent use.
type model interface {
	Detect(text string) Detection
	Languages() []Language
}

// loadFunc loads a model and reports languages as they are loaded.
type loadFunc func(ctx context.Context, loaded func([]Language)) (model, error)

// server answers HTTP before, while and after its model loads.
type server struct {
	log          *slog.Logger
	load         loadFunc
	maxTextBytes int
	progress     *progress
	model        atomic.Pointer[model] // nil until it has passed its warm-up
}

func newServer(log *slog.Logger, load loadFunc, languages, maxTextBytes int) *server {
	return &server{log: log, load: load, maxTextBytes: maxTextBytes, progress: newProgress(languages, time.Now())}
}

// run serves on ln, and loads the model meanwhile, until ctx ends or the model cannot be loaded. Then it drains.
func (s *server) run(ctx context.Context, ln net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	srv := &http.Server{
		Handler:           recordAccess(s.log, s.handler()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       idleLimit,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var (
		wg                  sync.WaitGroup
		loadErr, drainedErr error
	)
	wg.Go(func() {
		if err := s.loadModel(ctx); err != nil && ctx.Err() == nil {
			loadErr = fmt.Errorf("load the models: %w", err)
			stop(loadErr)
		}
	})
	wg.Go(func() {
		<-ctx.Done()
		s.log.Info("draining", "cause", context.Cause(ctx).Error())
		limited, done := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
		defer done()
		if err := srv.Shutdown(limited); err != nil {
			drainedErr = errors.Join(fmt.Errorf("drain: requests still under way after %s: %w", drainLimit, err), srv.Close())
		}
	})
	err := srv.Serve(ln)
	stop(err) // Serve may have failed by itself
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(loadErr, err, drainedErr)
}

func (s *server) loadModel(ctx context.Context) error {
	m, err := s.load(ctx, func(languages []Language) {
		s.progress.add(languages, time.Now())
		for _, language := range languages {
			s.log.Debug("loaded", "code", language.Code)
		}
	})
	if err != nil {
		return err
	}
	s.model.Store(&m)
	s.log.Info("ready", "languages", len(m.Languages()), "seconds", seconds(time.Since(s.progress.started)), "rss_bytes", residentBytes())
	return nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/detect", only(s.detect, http.MethodPost))
	mux.Handle("/languages", only(s.languages, http.MethodGet, http.MethodHead))
	mux.Handle("/health", only(s.health, http.MethodGet, http.MethodHead))
	mux.Handle("/ready", only(s.ready, http.MethodGet, http.MethodHead))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &requestError{http.StatusNotFound, "not_found",
			fmt.Sprintf("there is nothing at %s; want POST /detect, GET /languages, GET /health or GET /ready", r.URL.Path)})
	})
	return mux
}

// health is the liveness probe. It does not wait for the models: if a platform restarted replicas that load slowly, they would
// never become ready.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// ready is the readiness probe. It reports whether texts can be detected now.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	answer := struct {
		Ready  bool     `json:"ready"`
		Loaded []string `json:"loaded"`
		Total  int      `json:"total"`
	}{Total: s.progress.total}
	// Check the model first. If it becomes ready in between, the response says that everything is loaded.
	answer.Ready = s.model.Load() != nil
	var left time.Duration
	answer.Loaded, left = s.progress.state()
	if !answer.Ready {
		retryAfter(w, left)
		writeJSON(w, http.StatusServiceUnavailable, answer)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *server) languages(w http.ResponseWriter, _ *http.Request) {
	m, ok := s.loaded(w)
	if !ok {
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"languages": m.Languages()})
}

// loaded returns the model, or responds that it is not loaded yet.
func (s *server) loaded(w http.ResponseWriter) (model, bool) {
	if m := s.model.Load(); m != nil {
		return *m, true
	}
	loaded, left := s.progress.state()
	retryAfter(w, left)
	writeError(w, &requestError{http.StatusServiceUnavailable, "loading",
		fmt.Sprintf("the models are loading: %d of %d languages so far; GET /ready tells when they are there", len(loaded), s.progress.total)})
	return nil, false
}
