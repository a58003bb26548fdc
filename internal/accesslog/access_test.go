package accesslog_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/accesslog"
	"penstock/internal/segment"
)

const app = "/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/chat"

func record(n int) accesslog.Record {
	return accesslog.Record{
		Start: time.Unix(1_700_000_000, int64(n)*1000), Client: "192.0.2.7", Forwarded: "198.51.100.1, 192.0.2.7", Connection: 12,
		Scheme: "https", Proto: "HTTP/2.0", Host: "chat.example", Method: "POST", Path: fmt.Sprintf("/v1?n=%d", n), UserAgent: "curl/8",
		RequestID: fmt.Sprintf("id-%d", n), App: app, Revision: app + "/revisions/chat--1", Replica: "chat--1-a", Upstream: "10.1.0.2:80",
		Attempts: 2, Status: 200, BytesIn: 10, BytesOut: 1 << 33, Flags: accesslog.FlagConnectFailure,
		Held: time.Second, FirstByte: 2 * time.Second, Duration: 3*time.Second + 5,
	}
}

// write writes records to dir with a new writer.
func write(t testing.TB, dir string, limits accesslog.Limits, records ...accesslog.Record) *accesslog.Writer {
	t.Helper()
	w, err := accesslog.NewWriter(dir, limits, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		w.Add(&records[i])
	}
	run(t, w)()
	return w
}

// run runs a writer and returns a function that stops it.
func run(t testing.TB, w *accesslog.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func read(t testing.TB, dir string, q accesslog.Query) (all []accesslog.Record) {
	t.Helper()
	for r, err := range accesslog.Read(t.Context(), dir, q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func paths(records []accesslog.Record) string {
	var all []string
	for _, r := range records {
		all = append(all, strings.TrimPrefix(r.Path, "/v1?n="))
	}
	return strings.Join(all, " ")
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	want := []accesslog.Record{record(0), record(1), {App: app, Start: time.Unix(1_700_000_001, 0)}}
	write(t, dir, accesslog.Limits{}, want...)
	got := read(t, dir, accesslog.Query{App: strings.ToUpper(app)})
	name := fmt.Sprintf("ingress-%d", os.Getpid())
	for i := range want {
		want[i].Ingress = name
	}
	slices.SortFunc(want, func(a, b accesslog.Record) int { return a.End().Compare(b.End()) })
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestQuery(t *testing.T) {
	dir := t.TempDir()
	var records []accesslog.Record
	for n := range 6 {
		r := record(n)
		if n == 4 {
			r.App = "/another"
		}
		if n == 5 {
			r.Revision, r.Replica = app+"/revisions/chat--2", "chat--2-b"
		}
		records = append(records, r)
	}
	write(t, dir, accesslog.Limits{}, records[:3]...)
	write(t, dir, accesslog.Limits{}, records[3:]...)
	last := records[3]
	tests := map[string]struct {
		query accesslog.Query
		want  string
	}{
		"all":                      {accesslog.Query{}, "0 1 2 3 5"},
		"the newest, of two files": {accesslog.Query{Tail: 3}, "2 3 5"},
		"none":                     {accesslog.Query{Tail: -1}, ""},
		"one revision":             {accesslog.Query{Revision: "Chat--2"}, "5"},
		"one replica":              {accesslog.Query{Replica: "chat--1-a", Tail: 2}, "2 3"},
		"since":                    {accesslog.Query{Since: last.End()}, "3 5"},
	}
	for name, test := range tests {
		test.query.App = app
		if got := paths(read(t, dir, test.query)); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if got := read(t, filepath.Join(dir, "none"), accesslog.Query{App: app}); len(got) > 0 {
		t.Errorf("where no ingress has been: got %v", got)
	}
}

// A record can be read within a second while the ingress runs, even if it follows an incomplete block.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, err := accesslog.NewWriter(dir, accesslog.Limits{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, w)
		defer stop()
		old := record(1)
		w.Add(&old)
		time.Sleep(time.Second)

		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan accesslog.Record)
		var wg sync.WaitGroup
		wg.Go(func() {
			for r, err := range accesslog.Read(ctx, dir, accesslog.Query{App: app, Tail: -1, Follow: true}) {
				if err != nil {
					t.Error(err)
				}
				got <- r
			}
		})
		synctest.Wait()
		for n := 2; n < 5; n++ {
			r := record(n)
			began := time.Now()
			w.Add(&r)
			if seen := <-got; seen.Path != r.Path {
				t.Errorf("got %s, want %s", seen.Path, r.Path)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("record %d was seen after %s, want 1s at most", n, took)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestLimits(t *testing.T) {
	var many []accesslog.Record
	for n := range 3000 {
		many = append(many, record(n))
	}
	size := func(dir string) (total int64) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
		}
		return total
	}
	t.Run("the oldest segments go when there are too many", func(t *testing.T) {
		dir := t.TempDir()
		limits := accesslog.Limits{SegmentBytes: 70 << 10, TotalBytes: 200 << 10}
		for range 5 {
			write(t, dir, limits, many...)
		}
		if got := size(dir); got > 200<<10 || got < 100<<10 {
			t.Errorf("got %d bytes, want 100 to 200 KiB", got)
		}
		if got := read(t, dir, accesslog.Query{App: app, Tail: 1}); paths(got) != "2999" {
			t.Errorf("the newest: got %q, want 2999", paths(got))
		}
	})
	t.Run("a segment goes when it is too old", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, accesslog.Limits{}, record(1))
		old, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(old) != 1 {
			t.Fatalf("got %v, %v, want one segment", old, err)
		}
		past := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(old[0], past, past); err != nil {
			t.Fatal(err)
		}
		write(t, dir, accesslog.Limits{Age: 3 * time.Hour}, record(2))
		if got := paths(read(t, dir, accesslog.Query{App: app})); got != "1 2" {
			t.Errorf("before: got %q, want both", got)
		}
		write(t, dir, accesslog.Limits{Age: time.Hour}, record(3))
		if got := paths(read(t, dir, accesslog.Query{App: app})); got != "2 3" {
			t.Errorf("after: got %q, want 2 3", got)
		}
	})
	t.Run("long strings are cut", func(t *testing.T) {
		dir := t.TempDir()
		r := record(1)
		r.Path, r.UserAgent = strings.Repeat("p", 100<<10), strings.Repeat("a", 100<<10)
		write(t, dir, accesslog.Limits{}, r, r, record(2))
		got := read(t, dir, accesslog.Query{App: app})
		if len(got) != 3 || len(got[0].Path) != 2<<10 || len(got[1].UserAgent) != 512 || got[2].Path != "/v1?n=2" {
			t.Errorf("got %d records of path lengths %d, %d", len(got), len(got[0].Path), len(got[1].Path))
		}
	})
}

// If nobody writes, a limited number of records is kept, and Add still returns.
func TestDiskThatTakesNothing(t *testing.T) {
	dir := t.TempDir()
	var said strings.Builder
	w, err := accesslog.NewWriter(dir, accesslog.Limits{}, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r := record(1)
	r.Path = strings.Repeat("p", 2<<10)
	const n = 10_000
	for range n {
		w.Add(&r)
	}
	dropped := w.Dropped()
	if dropped == 0 {
		t.Fatal("20 MB of records were taken, want drops")
	}
	run(t, w)()
	if got := len(read(t, dir, accesslog.Query{App: app})); uint64(got)+dropped != n {
		t.Errorf("%d records are kept and %d dropped of %d", got, dropped, n)
	}
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, fmt.Sprintf("dropped=%d", dropped)) {
		t.Errorf("want one line that says that %d were dropped, got %q", dropped, got)
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w = write(t, dir, accesslog.Limits{}) // creates the folder
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.Add(&r)
	run(t, w)()
	if got := w.Dropped(); got != 1 {
		t.Errorf("without a folder: %d dropped, want 1", got)
	}
}

func TestTornAndDamagedSegments(t *testing.T) {
	tests := map[string]struct {
		damage func([]byte) []byte
		want   string
		told   bool // false for an incomplete end, which may just be in the process of being written
	}{
		"the last block is torn":   {func(b []byte) []byte { return b[:len(b)-3] }, "2", false},
		"a bit is flipped":         {func(b []byte) []byte { b[len(b)-3] ^= 1; return b }, "2", true},
		"zeros behind it":          {func(b []byte) []byte { return append(b, make([]byte, 100)...) }, "1 2", true},
		"only a part of the first": {func(b []byte) []byte { return b[:7] }, "2", false},
		"a version of another day": {func(b []byte) []byte { return bytes.Replace(b, []byte("PENSEG1"), []byte("PENSEG9"), 1) }, "2", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, accesslog.Limits{}, record(1))
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("got %v, %v, want one segment", files, err)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[0], test.damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			write(t, dir, accesslog.Limits{}, record(2))
			for _, tail := range []int{0, 5} {
				var said strings.Builder
				log := slog.New(slog.NewTextHandler(&said, nil))
				if got := paths(read(t, dir, accesslog.Query{App: app, Tail: tail, Log: log})); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				if got := strings.Contains(said.String(), "parts=1"); got != test.told {
					t.Errorf("was damage told: %t, want %t: %s", got, test.told, said.String())
				}
			}
		})
	}
}

// With many goroutines no record is lost or mixed up.
func TestAddFromManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	w, err := accesslog.NewWriter(dir, accesslog.Limits{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, w)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				r := record(g*1000 + n)
				r.UserAgent = fmt.Sprint(g)
				w.Add(&r)
			}
		})
	}
	wg.Wait()
	stop()
	got := read(t, dir, accesslog.Query{App: app})
	seen := map[string]bool{}
	for _, r := range got {
		seen[r.UserAgent+" "+r.Path] = true
	}
	if len(seen) != 8000 || w.Dropped() != 0 {
		t.Errorf("got %d of 8000 records, %d dropped", len(seen), w.Dropped())
	}
}

func TestFlagsAndDetails(t *testing.T) {
	tests := map[string]accesslog.Record{
		"via_upstream":        {Status: 200, FirstByte: 1},
		"direct_response":     {Status: 301},
		"loop_detected":       {Status: 508},
		"route_not_found":     {Status: 404, Flags: accesslog.FlagNoRoute},
		"no_healthy_upstream": {Status: 503, Flags: accesslog.FlagNoHealthyUpstream},
		"response_timeout":    {Status: 504, Flags: accesslog.FlagUpstreamTimeout},
		"stream_idle_timeout": {Status: 504, Flags: accesslog.FlagStreamIdle},
		"local_reset":         {Status: 503, Flags: accesslog.FlagLocalReset},
		"http1.codec_error":   {Status: 400, Flags: accesslog.FlagDownstreamProtocol},
		"upstream_reset_before_response_started{overflow}":                  {Status: 503, Flags: accesslog.FlagOverflow},
		"upstream_reset_before_response_started{remote_connection_failure}": {Status: 503, Flags: accesslog.FlagConnectFailure},
		"upstream_reset_before_response_started{protocol_error}":            {Status: 502, Flags: accesslog.FlagUpstreamProtocol},
		"upstream_reset_after_response_started{connection_termination}":     {Status: 200, FirstByte: 1, Flags: accesslog.FlagUpstreamTermination},
		"downstream_remote_disconnect":                                      {Flags: accesslog.FlagDownstreamTermination | accesslog.FlagConnectFailure},
	}
	for want, r := range tests {
		if got := r.Details(); got != want {
			t.Errorf("%+v: got %s, want %s", r, got, want)
		}
	}
	if got := (accesslog.FlagConnectFailure | accesslog.FlagNoHealthyUpstream).String(); got != "UH,UF" {
		t.Errorf("flags: got %q, want UH,UF", got)
	}
	second := accesslog.Record{Status: 200, FirstByte: 1, Attempts: 2, Flags: accesslog.FlagConnectFailure}
	if got := second.Details(); got != "via_upstream" {
		t.Errorf("after a second try: got %s, want via_upstream", got)
	}
}

// FuzzRead reads a segment with arbitrary content.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, accesslog.Limits{}, record(1), record(2))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		f.Fatalf("got %v, %v, want one segment", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), b, 0o600); err != nil {
			t.Fatal(err)
		}
		all := len(read(t, dir, accesslog.Query{App: app}))
		if got := len(read(t, dir, accesslog.Query{App: app, Tail: 1})); got != min(all, 1) {
			t.Errorf("the newest of %d: got %d", all, got)
		}
	})
}

// FuzzRecords reads a block with a valid checksum and arbitrary content.
func FuzzRecords(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, accesslog.Limits{}, record(1), record(2))
	files, err := segment.List(dir, nil)
	if err != nil || len(files) != 1 {
		f.Fatalf("got %v, %v, want one segment", files, err)
	}
	const schema = "penstock-requests 2"
	r := segment.NewReader(dir, schema, nil)
	defer r.Close()
	if _, err := r.Scan(f.Context(), files[0], 0, false, func(b segment.Found) bool {
		f.Add(b.Payload, 2)
		f.Add(b.Payload[:len(b.Payload)-1], 3)
		return true
	}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte, records int) {
		dir := t.TempDir()
		w := segment.New(dir, segment.Config{Schema: schema})
		defer w.Close()
		if _, err := w.Append(segment.Block{Records: records, First: time.Unix(0, 0), Last: time.Unix(0, 0), Payload: payload}); err != nil {
			t.Fatal(err)
		}
		all := len(read(t, dir, accesslog.Query{App: app}))
		if got := len(read(t, dir, accesslog.Query{App: app, Tail: 1})); got != min(all, 1) {
			t.Errorf("the newest of %d: got %d", all, got)
		}
	})
}

// old is a segment written by the previous version.
const old = "20261124T105716.123456-4711.requests"

func TestRecordsOfTheVersionBefore(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "version1"))); err != nil {
		t.Fatal(err)
	}
	want := []accesslog.Record{record(1), record(2), record(3)}
	for i := range want {
		want[i].Ingress = "ingress-4711"
	}
	if d := cmp.Diff(want, read(t, dir, accesslog.Query{App: app})); d != "" {
		t.Error(d)
	}
	write(t, dir, accesslog.Limits{}, record(4))
	for tail, want := range map[int]string{0: "1 2 3 4", 2: "3 4", 1: "4", -1: ""} {
		if got := paths(read(t, dir, accesslog.Query{App: app, Tail: tail})); got != want {
			t.Errorf("the newest %d: got %q, want %q", tail, got, want)
		}
	}
	past := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, old), past, past); err != nil {
		t.Fatal(err)
	}
	write(t, dir, accesslog.Limits{Age: time.Hour}, record(5))
	if got := paths(read(t, dir, accesslog.Query{App: app})); got != "4 5" {
		t.Errorf("after their time: got %q, want 4 5", got)
	}
}

// FuzzReadVersionBefore reads an old segment with arbitrary content.
func FuzzReadVersionBefore(f *testing.F) {
	whole, err := os.ReadFile(filepath.Join("testdata", "version1", old))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		const block, head = 20, 40
		if len(b) >= block+head {
			// A valid checksum, so that the content of the block is reached.
			if end := block + head + int(binary.LittleEndian.Uint32(b[block+4:])); end <= len(b) && end >= block+head {
				binary.LittleEndian.PutUint32(b[block+8:], crc32.Checksum(b[block+12:end], crc32.MakeTable(crc32.Castagnoli)))
			}
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, old), b, 0o600); err != nil {
			t.Fatal(err)
		}
		all := len(read(t, dir, accesslog.Query{App: app}))
		if got := len(read(t, dir, accesslog.Query{App: app, Tail: 1})); got != min(all, 1) {
			t.Errorf("the newest of %d: got %d", all, got)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	w, err := accesslog.NewWriter(b.TempDir(), accesslog.Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer run(b, w)()
	r := record(1)
	b.ReportAllocs()
	for b.Loop() {
		w.Add(&r)
	}
	b.ReportMetric(float64(w.Dropped())/float64(b.N), "dropped/op")
}
