package terminal_test

import (
	"bytes"
	"testing"

	"penstock/internal/arm/terminal"
)

func TestMessages(t *testing.T) {
	for _, k := range []terminal.Kind{terminal.Input, terminal.Output, terminal.Errors, terminal.Resize, terminal.Fault} {
		kind, data, err := terminal.Parse(terminal.Message(k, []byte("\x00data")))
		if kind != k || string(data) != "\x00data" || err != nil {
			t.Errorf("kind %q: got %q, %q, %v", k, kind, data, err)
		}
	}
	// What az sends for the letter l and for its terminal.
	if k, data, err := terminal.Parse([]byte("\x00\x00l")); k != terminal.Input || string(data) != "l" || err != nil {
		t.Errorf("a key: got %q, %q, %v", k, data, err)
	}
	if s, err := terminal.ParseSize([]byte(`{"Width": 132, "Height": 43}`)); s != (terminal.Size{Width: 132, Height: 43}) || err != nil {
		t.Errorf("a size: got %+v, %v", s, err)
	}
	for _, bad := range []string{`{}`, `{"Width":-1,"Height":2}`, `{"Width":70000,"Height":2}`, `80x24`} {
		if _, err := terminal.ParseSize([]byte(bad)); err == nil {
			t.Errorf("size %s: want an error", bad)
		}
	}
	if code, err := terminal.ParseReason(terminal.Reason(42)); code != 42 || err != nil {
		t.Errorf("reason: got %d, %v", code, err)
	}
	for _, bad := range []string{"", "exit", "exit x", "exit 256", "42"} {
		if _, err := terminal.ParseReason(bad); err == nil {
			t.Errorf("reason %q: want an error", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x00\x00l"))
	f.Add([]byte("\x00\x04{\"Width\": 80, \"Height\": 24}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		kind, data, err := terminal.Parse(message)
		if err == nil && !bytes.Equal(terminal.Message(kind, data), message) {
			t.Errorf("%q: got %q and %q", message, kind, data)
		}
		if s, err := terminal.ParseSize(data); err == nil {
			if again, err := terminal.ParseSize(terminal.MarshalSize(s)); again != s || err != nil {
				t.Errorf("size %+v: got %+v, %v", s, again, err)
			}
		}
	})
}
