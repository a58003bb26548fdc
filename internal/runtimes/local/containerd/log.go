package containerd

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// logsTo sends containerd's logrus output to log. containerd's Info describes normal operation, which is our Debug.
func logsTo(out *slog.Logger) *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.InfoLevel)
	l.AddHook(slogHook{out})
	// Parts of containerd write to the default logger, a package variable, even if they are given another one.
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(slogHook{out})
	return logrus.NewEntry(l)
}

type slogHook struct{ log *slog.Logger }

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch {
	case expected(e):
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	if !h.log.Enabled(context.Background(), level) {
		return nil
	}
	attrs := make([]slog.Attr, 0, len(e.Data)+1)
	attrs = append(attrs, slog.String("message", e.Message))
	for k, v := range e.Data {
		attrs = append(attrs, slog.Any(k, v))
	}
	slices.SortFunc(attrs[1:], func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	h.log.LogAttrs(context.Background(), level, "containerd", attrs...)
	return nil
}

// expected reports whether a line above Info is expected in normal operation.
func expected(e *logrus.Entry) bool {
	for _, part := range []string{
		"copy shim log",                     // at every orderly stop
		"failed sending message on channel", // a shim that ends at the same time as this process
		"fsverity",                          // a file system feature that we do not use
		"cleaning up dead shim",             // follows a failed create, which the caller reports
		"failed to delete task",             // the same
		"failed to find warning",            // a part of containerd that is left out
		"deprecated",                        // penstock doctor reports what the machine lacks
	} {
		if strings.Contains(strings.ToLower(e.Message), part) {
			return true
		}
	}
	return false
}
