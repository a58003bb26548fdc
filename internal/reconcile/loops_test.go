package reconcile_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

// loops hands out the apps that are sent to it. A second one is taken only when the first has been reported.
type loops chan string

func (l loops) Looped(ctx context.Context, _ map[string]time.Time, _ time.Duration) (string, time.Time, error) {
	select {
	case app := <-l:
		return app, time.Now(), nil
	case <-ctx.Done():
		return "", time.Time{}, context.Cause(ctx)
	}
}

func TestReportLoops(t *testing.T) {
	w := newWorld(t)
	w.put(func(*resource.App) {})
	said, ended := make(loops), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		defer close(ended)
		w.reconciler.ReportLoops(ctx, said)
	}()
	for _, app := range []string{"no resource ID", chat.Parent().Child("containerApps", "gone").String(), chat.String(), "no resource ID"} {
		select {
		case said <- app:
		case <-ended:
			t.Fatal("ReportLoops has returned")
		}
	}
	stop()
	<-ended
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []resource.Event
	for _, e := range w.events {
		if e.Source == "Ingress" {
			got = append(got, e)
		}
	}
	if len(got) != 1 || got[0].App != chat || !got[0].Warning || got[0].Reason != "RequestLoop" || !strings.Contains(got[0].Message, "loop") {
		t.Errorf("got %+v, want one warning of the app that is there", got)
	}
}
