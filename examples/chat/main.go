// Chat is a simulator of an LLM server with an OpenAI-compatible API. There is no model behind it.
//
// It loads weights from a file, needs time to respond, has a few generation slots, streams tokens, and can leak, hang and
// crash on demand, as set by environment variables: see README.md. Its responses are random texts from a small vocabulary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Getenv, os.Stdout)
	stop()
	if crash, ok := errors.AsType[*crashError](err); ok {
		os.Exit(crash.code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
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
	log.Info("this is a simulator of an LLM server: no model answers here", "settings", cfg)
	return newServer(cfg, log, func() pacer { return newClock(cfg.FirstToken, cfg.TokensPerSecond) }).run(ctx)
}

func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
