package bench_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"penstock/internal/bench"
)

func options(t testing.TB) bench.Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to run containers")
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	o := bench.Options{
		Shim: filepath.Join(bin, "containerd-shim-runc-v2"), Runc: filepath.Join(bin, "runc"),
		Program: filepath.Join(t.TempDir(), "hello"), Port: 8080, Warmup: 1, Cycles: 3,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, path := range []string{o.Shim, o.Runc} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("missing: %s, which make builds", path)
		}
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", o.Program, ".")
	build.Dir = "../../examples/hello"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return o
}

func TestEngineTimesBothAndLeavesNothing(t *testing.T) {
	o := options(t)
	if n, err := strconv.Atoi(os.Getenv("PENSTOCK_BENCH_CYCLES")); err == nil {
		o.Cycles = n // for a figure that means something
	}
	var done int
	o.Progress = func(n, of int) { done = n }
	r, err := bench.Engine(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if done != o.Cycles || r.Engine.Count != o.Cycles || r.Runc.Count != o.Cycles {
		t.Errorf("%d cycles reported, %d and %d timed, want %d", done, r.Engine.Count, r.Runc.Count, o.Cycles)
	}
	if r.Engine.Min <= r.Start.Min || r.Start.Min <= 0 || r.Runc.Min <= 0 || r.Teardown.Min <= 0 || r.P50 <= 0 || r.P95 <= 0 {
		t.Errorf("times that cannot be: %+v", r)
	}
	if len(r.Left) != 0 {
		t.Errorf("left behind: %q", r.Left)
	}
}

func TestEngineRefusesWhatItCannotTime(t *testing.T) {
	if _, err := bench.Engine(t.Context(), bench.Options{Port: 80, Cycles: 0, Program: "x"}); err == nil {
		t.Error("timed no cycles")
	}
}
