package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/segment"
)

const schema = "test 1"

var at = time.Unix(1_700_000_000, 5)

func open(t testing.TB, dir string, cfg segment.Config) *segment.Folder {
	t.Helper()
	cfg.Schema = schema
	f, err := segment.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

func block(text string) segment.Block {
	return segment.Block{Records: 1, First: at, Last: at.Add(time.Second), Payload: []byte(text)}
}

func add(t testing.TB, f *segment.Folder, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := f.Append(block(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// texts returns the payloads of a whole folder, and the number of damaged parts.
func texts(t testing.TB, dir string) (all []string, damaged int) {
	t.Helper()
	files, err := segment.List(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := segment.NewReader(dir, schema, nil)
	defer r.Close()
	for _, f := range files {
		if _, err := r.Scan(t.Context(), f, 0, false, func(b segment.Found) bool {
			all = append(all, string(b.Payload))
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all, r.Damaged()
}

// onDisk returns the total size of the segments, and fails if one is empty.
func onDisk(t testing.TB, dir string) (total int64) {
	t.Helper()
	files, err := segment.List(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Size == 0 {
			t.Errorf("%s is empty", f.Name)
		}
		total += f.Size
	}
	return total
}

// only returns the path of the only segment.
func only(t testing.TB, dir string) string {
	t.Helper()
	files, err := segment.List(dir, nil)
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v, %v, want one segment", files, err)
	}
	return filepath.Join(dir, files[0].Name)
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made by the first append")
	f := open(t, dir, segment.Config{Meta: "whose"})
	want := []segment.Block{
		{Records: 3, Lost: 7, First: at, Last: at.Add(time.Hour), Key: "hour 1", Payload: []byte("three")},
		{Records: 1, First: at, Last: at, Payload: bytes.Repeat([]byte("x"), 300_000)},
		{First: at, Last: at, Payload: []byte{}},
	}
	for _, b := range want {
		if _, err := f.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	files, _, _ := f.State()
	r := segment.NewReader(dir, schema, nil)
	defer r.Close()
	var offsets []int64
	end, err := r.Scan(t.Context(), files[0], 0, false, func(b segment.Found) bool {
		w := want[len(offsets)]
		offsets = append(offsets, b.Offset)
		if b.Records != w.Records || b.Lost != w.Lost || !b.First.Equal(w.First) || !b.Last.Equal(w.Last) || b.Key != w.Key ||
			!bytes.Equal(b.Payload, w.Payload) || b.Meta != "whose" {
			t.Errorf("block %d: got %+v", len(offsets), b)
		}
		return true
	})
	if err != nil || len(offsets) != 3 || end != files[0].Size {
		t.Fatalf("got %d blocks up to %d, %v; want 3 up to %d", len(offsets), end, err, files[0].Size)
	}
	// From anywhere in the first block, the second block is the first to be found.
	for _, from := range []int64{offsets[0] + 1, offsets[1] - 1} {
		var first int64
		if _, err := r.Scan(t.Context(), files[0], from, true, func(b segment.Found) bool { first = b.Offset; return false }); err != nil || first != offsets[1] {
			t.Errorf("near %d: got the block at %d, %v; want that at %d", from, first, err, offsets[1])
		}
	}
	if r.Damaged() != 0 {
		t.Errorf("got %d damaged stretches of a sound segment", r.Damaged())
	}
	if _, err := f.Append(segment.Block{Payload: make([]byte, segment.MaxPayload+1)}); !errors.Is(err, segment.ErrTooLarge) {
		t.Errorf("got %v, want that the block is too large", err)
	}
	other := segment.NewReader(dir, "other 1", nil)
	defer other.Close()
	if end, err := other.Scan(t.Context(), files[0], 0, false, func(segment.Found) bool { t.Error("found a block of another schema"); return true }); end != files[0].Size || err != nil {
		t.Errorf("another schema: got %d, %v; want to pass over it", end, err)
	}
}

func TestAWriterGoesOnWhereTheOneBeforeEnded(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, segment.Config{})
	add(t, f, "one", "two")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(block("late")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append after close: got %v", err)
	}
	add(t, open(t, dir, segment.Config{}), "three")
	only(t, dir)
	another := segment.New(dir, segment.Config{Schema: schema})
	defer another.Close()
	add(t, another, "of another process")
	if files, err := segment.List(dir, nil); err != nil || len(files) != 2 {
		t.Errorf("got %d segments, %v; want one of each writer", len(files), err)
	}
	if got, _ := texts(t, dir); !slices.Equal(got, []string{"one", "two", "three", "of another process"}) {
		t.Errorf("got %q", got)
	}
}

func TestDamage(t *testing.T) {
	tests := map[string]struct {
		harm    func([]byte, []int) []byte // offsets of the blocks
		want    string                     // before anything else is appended
		damaged int
	}{
		"sound":                      {func(b []byte, _ []int) []byte { return b }, "one two three", 0},
		"the last block torn":        {func(b []byte, _ []int) []byte { return b[:len(b)-2] }, "one two", 0},
		"the last head torn":         {func(b []byte, at []int) []byte { return b[:at[2]+5] }, "one two", 0},
		"a bit of a payload flipped": {func(b []byte, at []int) []byte { b[at[2]-1] ^= 1; return b }, "one three", 1},
		"a bit of a time flipped":    {func(b []byte, at []int) []byte { b[at[1]+29] ^= 1; return b }, "one three", 1},
		"a length too long":          {func(b []byte, at []int) []byte { b[at[0]+13] = 1; return b }, "two three", 1},
		"a length beyond all bounds": {func(b []byte, at []int) []byte { b[at[1]+15] = 255; return b }, "one three", 1},
		"a length too short":         {func(b []byte, at []int) []byte { b[at[1]+12]--; return b }, "one three", 1},
		"a block cut out":            {func(b []byte, at []int) []byte { return slices.Delete(b, at[0], at[1]) }, "", 1},
		"noise between blocks":       {func(b []byte, at []int) []byte { copy(b[at[1]:at[2]], make([]byte, 100)); return b }, "one three", 1},
		"zeros at the end":           {func(b []byte, _ []int) []byte { return append(b, make([]byte, 200_000)...) }, "one two three", 1},
		"a block twice":              {func(b []byte, at []int) []byte { return append(b, b[at[0]:at[1]]...) }, "one two three", 1},
		"the header flipped":         {func(b []byte, _ []int) []byte { b[9] ^= 1; return b }, "", 0},
		"the header torn":            {func(b []byte, _ []int) []byte { return b[:10] }, "", 0},
		"a version to come":          {func(b []byte, _ []int) []byte { b[6] = '9'; return b }, "", 0},
		"empty, by a crash":          {func([]byte, []int) []byte { return nil }, "", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := open(t, dir, segment.Config{})
			add(t, f, "one", "two", "three")
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			path := only(t, dir)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var offsets []int
			for _, text := range []string{"one", "two", "three"} {
				offsets = append(offsets, bytes.Index(whole, []byte(text))-48)
			}
			if err := os.WriteFile(path, test.harm(whole, offsets), 0o600); err != nil {
				t.Fatal(err)
			}
			got, damaged := texts(t, dir)
			if strings.Join(got, " ") != test.want || damaged != test.damaged {
				t.Errorf("got %q and %d damaged, want %q and %d", got, damaged, test.want, test.damaged)
			}
			f = open(t, dir, segment.Config{})
			add(t, f, "next")
			if _, bytes := f.Extent(); bytes != onDisk(t, dir) {
				t.Errorf("after the next block: %d bytes known, %d on disk", bytes, onDisk(t, dir))
			}
			if got, _ := texts(t, dir); strings.Join(got, " ") != strings.TrimSpace(test.want+" next") {
				t.Errorf("after the next block: got %q, want %q and it", got, test.want)
			}
		})
	}
}

// A whole block inside a payload of the same segment is not taken for a block, even if the block around it is damaged.
func TestABlockInAPayloadIsNoBlock(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, segment.Config{})
	add(t, f, "inner")
	whole, err := os.ReadFile(only(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	inner := whole[bytes.Index(whole, []byte("inner"))-48:]
	add(t, f, "around "+string(inner)+" it", "after")
	if whole, err = os.ReadFile(only(t, dir)); err != nil {
		t.Fatal(err)
	}
	whole[bytes.Index(whole, []byte("around"))] ^= 1
	if err := os.WriteFile(only(t, dir), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, damaged := texts(t, dir); !slices.Equal(got, []string{"inner", "after"}) || damaged != 1 {
		t.Errorf("got %q and %d damaged, want inner, after and 1", got, damaged)
	}
}

// Bytes in a damaged payload that look like the heads of long blocks cost a reader only one check each.
func TestDamageIsPassedInLinearTime(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, segment.Config{})
	add(t, f, "sample", "before")
	whole, err := os.ReadFile(only(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	head := whole[bytes.Index(whole, []byte("sample"))-48:][:48]
	var payload []byte
	for len(payload) < segment.MaxPayload-48 {
		binary.LittleEndian.PutUint32(head[12:], uint32(segment.MaxPayload-48-len(payload)))
		payload = append(payload, head...)
	}
	add(t, f, string(payload), "after")
	files, err := segment.List(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name)
		if whole, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(whole, payload); i >= 0 {
			whole[i+48+1] ^= 1
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Reading up to the end of each would take minutes.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := segment.NewReader(dir, schema, nil)
	defer r.Close()
	var got []string
	for _, file := range files {
		if _, err := r.Scan(ctx, file, 0, false, func(b segment.Found) bool { got = append(got, string(b.Payload)); return true }); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"sample", "before", "after"}; !slices.Equal(got, want) || r.Damaged() != 1 {
		t.Errorf("got %d blocks and %d damaged, want %q and 1", len(got), r.Damaged(), want)
	}
}

func TestRepeatedKeysCountOnce(t *testing.T) {
	dir := t.TempDir()
	entry := func(key string) segment.Block {
		b := block(key)
		b.Key = key
		return b
	}
	for round := range 3 { // each round begins where a crash may have ended the previous one
		f := open(t, dir, segment.Config{Keyed: true, SegmentBytes: 256})
		for i := range 5 + round {
			grown, err := f.Append(entry(fmt.Sprint("hour ", i)))
			if err != nil {
				t.Fatal(err)
			}
			if first := round == 0 || i == 4+round; (grown > 0) != first {
				t.Errorf("round %d, hour %d: grew by %d", round, i, grown)
			}
		}
		if grown, err := f.Append(block("no key")); err != nil || grown == 0 {
			t.Errorf("a block without a key: grew by %d, %v", grown, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := texts(t, dir)
	got = slices.DeleteFunc(got, func(s string) bool { return s == "no key" })
	if want := []string{"hour 0", "hour 1", "hour 2", "hour 3", "hour 4", "hour 5", "hour 6"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTotalBytesAndAge(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, segment.Config{SegmentBytes: 1 << 10, TotalBytes: 5 << 10})
	for i := range 100 {
		add(t, f, fmt.Sprint(i, strings.Repeat(" ", 200)))
		var total int64
		files, err := segment.List(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range files {
			total += s.Size
		}
		if _, bytes := f.Extent(); total > 5<<10 || bytes != total {
			t.Fatalf("after %d: %d bytes on disk and %d known, want the same, up to 5 KiB", i, total, bytes)
		}
	}
	got, _ := texts(t, dir)
	if n := len(got); n < 10 || !strings.HasPrefix(got[n-1], "99 ") || !strings.HasPrefix(got[0], fmt.Sprint(100-n, " ")) {
		t.Errorf("got %d blocks, want the newest without a hole", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir, segment.Config{Age: time.Hour})
	if err := f.Trim(time.Now().Add(30 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if again, _ := texts(t, dir); len(again) != len(got) {
		t.Errorf("before their time: %d blocks left of %d", len(again), len(got))
	}
	if err := f.Trim(time.Now().Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if again, _ := texts(t, dir); len(again) != 0 {
		t.Errorf("after their time: %d blocks left", len(again))
	}
	add(t, f, "fresh")
	if again, _ := texts(t, dir); !slices.Equal(again, []string{"fresh"}) {
		t.Errorf("got %q", again)
	}
}

func TestDropOldest(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, segment.Config{SegmentBytes: 200})
	add(t, f, strings.Repeat("a", 100), strings.Repeat("b", 100))
	for _, want := range []int{1, 0} {
		if freed, err := f.DropOldest(); err != nil || freed == 0 {
			t.Errorf("freed %d, %v", freed, err)
		}
		if got, _ := texts(t, dir); len(got) != want {
			t.Errorf("got %d blocks, want %d", len(got), want)
		}
	}
	if freed, err := f.DropOldest(); err != nil || freed != 0 {
		t.Errorf("nothing is there: freed %d, %v", freed, err)
	}
	add(t, f, "c")
	if got, _ := texts(t, dir); !slices.Equal(got, []string{"c"}) {
		t.Errorf("got %q", got)
	}
}

// A reader that knows only the files, like a reader in another process, sees each block once and complete while the
// folder is being written.
func TestReadWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	const blocks = 400
	f := open(t, dir, segment.Config{SegmentBytes: 100_000})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range blocks {
			if _, err := f.Append(block(fmt.Sprint(i, " ", strings.Repeat("x", rand.IntN(40_000))))); err != nil {
				t.Error(err)
			}
		}
	})
	r := segment.NewReader(dir, schema, nil)
	defer r.Close()
	offsets := map[string]int64{}
	for seen := 0; seen < blocks; {
		files, err := segment.List(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			offsets[file.Name], err = r.Scan(t.Context(), file, offsets[file.Name], false, func(b segment.Found) bool {
				if !strings.HasPrefix(string(b.Payload), fmt.Sprint(seen, " ")) {
					t.Errorf("got %.10q, want block %d", b.Payload, seen)
				}
				seen++
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	if r.Damaged() != 0 {
		t.Errorf("got %d damaged stretches", r.Damaged())
	}
}

func TestStateWakesWhoWaits(t *testing.T) {
	f := open(t, t.TempDir(), segment.Config{})
	_, changed, closed := f.State()
	select {
	case <-changed:
		t.Fatal("woken by nothing")
	default:
	}
	add(t, f, "one")
	<-changed
	files, changed, _ := f.State()
	if len(files) != 1 || closed {
		t.Errorf("got %v, closed %t", files, closed)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	<-changed
	if _, _, closed := f.State(); !closed {
		t.Error("closed, and State does not say so")
	}
}

func FuzzScan(f *testing.F) {
	dir := f.TempDir()
	w := open(f, dir, segment.Config{Meta: "m"})
	add(f, w, "one", "two", "three")
	path := only(f, dir)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, uint16(0))
	f.Add(whole[:len(whole)-3], uint16(60))
	f.Add(slices.Concat(whole[:100], whole), uint16(1))
	f.Fuzz(func(t *testing.T, content []byte, from uint16) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		before, _ := texts(t, dir)
		files, err := segment.List(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := segment.NewReader(dir, schema, nil)
		defer r.Close()
		var tail []string
		end, err := r.Scan(t.Context(), files[0], int64(from), true, func(b segment.Found) bool {
			tail = append(tail, string(b.Payload))
			return true
		})
		if err != nil || end > max(int64(len(content)), int64(from)) {
			t.Errorf("got an end of %d, %v", end, err)
		}
		if n := len(before) - len(tail); n < 0 || !slices.Equal(before[n:], tail) {
			t.Errorf("from %d on: got %q of %q", from, tail, before)
		}
		w := open(t, dir, segment.Config{})
		add(t, w, "next")
		if after, _ := texts(t, dir); !slices.Equal(after, append(before, "next")) {
			t.Errorf("got %q, want %q and the next", after, before)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	f := open(b, b.TempDir(), segment.Config{TotalBytes: 64 << 20})
	payload := block(strings.Repeat("x", 250))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Append(payload); err != nil {
			b.Fatal(err)
		}
	}
}
