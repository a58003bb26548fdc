// Langdetect serves a trained language detection model over HTTP.
//
// The weights are inside the program, so its image is one layer with one static file. How many languages
// are loaded, and how accurately, sets the time to start and the memory: see README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "langdetect:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then finishes the requests in flight.
func run(ctx context.Context, getenv func(string) string, stdout io.Writer) error {
	cfg, err := readConfig(getenv)
	if err != nil {
		return fmt.Errorf("settings:\n%w", err)
	}
	log := newLogger(stdout, cfg.LogLevel)

	// Open the port before loading, so that a platform sees that the process is alive and can ask for its progress.
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(cfg.Port)))
	if err != nil {
		return fmt.Errorf("PORT: open %d: %w", cfg.Port, err)
	}
	log.Info("listening", "addr", ln.Addr().String())

	load := func(ctx context.Context, loaded func([]Language)) (model, error) {
		return loadLingua(ctx, cfg.Languages, cfg.Accuracy, loaded)
	}
	s := newServer(log, load, len(cfg.Languages), cfg.MaxTextBytes)
	log.Info("loading", "languages", len(cfg.Languages), "accuracy", cfg.Accuracy)
	return s.run(ctx, ln)
}

func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
