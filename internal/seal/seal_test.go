package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"penstock/internal/seal"
)

func box(t testing.TB, key byte) *seal.Box {
	t.Helper()
	b, err := seal.New(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsSealedOpensAgain(t *testing.T) {
	b := box(t, 1)
	for _, value := range []string{"", "s3cret", strings.Repeat("가", 1<<16)} {
		sealed := b.Seal("app/key", value)
		if value != "" && bytes.Contains(sealed, []byte(value)) {
			t.Errorf("the value can be read")
		}
		got, err := b.Open("app/key", sealed)
		if err != nil || got != value {
			t.Errorf("%d bytes: got %d, %v", len(value), len(got), err)
		}
		if bytes.Equal(sealed, b.Seal("app/key", value)) {
			t.Error("equal values are seen to be equal")
		}
	}
}

func TestWhatDoesNotOpen(t *testing.T) {
	b := box(t, 1)
	sealed := b.Seal("app/key", "s3cret")
	if _, err := box(t, 2).Open("app/key", sealed); !errors.Is(err, seal.ErrOtherKey) {
		t.Errorf("under another key: %v", err)
	}
	if _, err := b.Open("app/other", sealed); err == nil {
		t.Error("it opens in another's place")
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if got, err := b.Open("app/key", changed); err == nil {
			t.Errorf("with byte %d changed it opens as %q", i, got)
		}
		if got, err := b.Open("app/key", sealed[:i]); err == nil {
			t.Errorf("cut at byte %d it opens as %q", i, got)
		}
	}
	if _, err := seal.New(make([]byte, 16)); err == nil {
		t.Error("a key of 16 bytes is taken")
	}
}

func FuzzOpen(f *testing.F) {
	b := box(f, 1)
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 4, 5, 6})
	f.Add(box(f, 2).Seal("app/key", "s3cret"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if got, err := b.Open("app/key", sealed); err == nil {
			t.Errorf("%x opens as %q", sealed, got)
		}
	})
}
