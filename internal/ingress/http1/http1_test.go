package http1_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"penstock/internal/ingress/http1"
)

// take gives b the text in pieces of that size, as a connection would, and returns what is the body's and what is left.
func take(b *http1.Body, text string, size int) (data, rest string, err error) {
	var body bytes.Buffer
	var in []byte
	for {
		p, n, more, err := b.Take(in)
		body.Write(p)
		in = in[n:]
		switch {
		case err != nil:
			return body.String(), "", err
		case len(p) > 0:
		case !more:
			return body.String(), string(in) + text, nil
		case text == "":
			return body.String(), "", errors.New("it waits for more")
		default:
			cut := min(size, len(text))
			in, text = append(in, text[:cut]...), text[cut:]
		}
	}
}

func TestBodies(t *testing.T) {
	chunks := strings.Repeat("1\r\nx\r\n", 10_000)
	extended := strings.Repeat("1;"+strings.Repeat("e", 100)+"\r\nx\r\n", 1000)
	for name, test := range map[string]struct {
		body http1.Body
		text string
		data string // "!": refused
		rest string
	}{
		"none":                       {http1.Body{}, "next", "", "next"},
		"length":                     {http1.ByLength(4), "bodynext", "body", "next"},
		"no length":                  {http1.ByLength(0), "next", "", "next"},
		"chunks":                     {http1.Chunked(), "2\r\nbo\r\n2;a=b\r\ndy\r\n0\r\n\r\nnext", "body", "next"},
		"small chunks":               {http1.Chunked(), chunks + "0\r\n\r\n", strings.Repeat("x", 10_000), ""},
		"a trailer":                  {http1.Chunked(), "0\r\nA: b\r\n\r\nnext", "", "next"},
		"extensions without end":     {http1.Chunked(), extended, "!", ""},
		"a size line without end":    {http1.Chunked(), strings.Repeat("0", 5000), "!", ""},
		"a trailer without end":      {http1.Chunked(), "0\r\nA: " + strings.Repeat("b", 40<<10), "!", ""},
		"too many fields in trailer": {http1.Chunked(), "0\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n", "!", ""},
		"a chunk longer than said":   {http1.Chunked(), "1\r\nab\r\n0\r\n\r\n", "!", ""},
		"a size of 64 bits":          {http1.Chunked(), "ffffffffffffffff\r\n", "!", ""},
	} {
		for _, size := range []int{1, 7, 4096} {
			b := test.body
			data, rest, err := take(&b, test.text, size)
			if test.data == "!" {
				if !errors.Is(err, http1.ErrMalformed) {
					t.Errorf("%s, %d bytes at a time: got %v, want a refusal", name, size, err)
				}
				continue
			}
			if data != test.data || rest != test.rest || err != nil || !b.Done() {
				t.Errorf("%s, %d bytes at a time: got %.60q with %.60q left, %v, want %.60q with %q", name, size, data, rest, err, test.data, test.rest)
			}
		}
	}
	b := http1.ToTheEnd()
	if data, _, err := take(&b, "all", 1); data != "all" || err == nil || b.Done() || !b.End() || !b.Done() {
		t.Errorf("to the end: got %q, %v", data, err)
	}
	b = http1.ByLength(2)
	if b.End() {
		t.Error("a body with a length is whole without its bytes")
	}
}

// However it is cut into pieces, a chunked body is the same, and what is written anew has one reading.
func FuzzChunks(f *testing.F) {
	for _, seed := range []string{"2\r\nab\r\n0\r\n\r\n", "1;x=\"y\"\r\na\r\n00\r\nA: b\r\n\r\nrest", "0\r\n\r\n", "g\r\n", "2\r\nabc\r\n"} {
		f.Add(seed, 3)
	}
	f.Fuzz(func(t *testing.T, text string, size int) {
		whole, pieces := http1.Chunked(), http1.Chunked()
		data, rest, err := take(&whole, text, len(text)+1)
		data2, rest2, err2 := take(&pieces, text, max(size, 1))
		if data != data2 || rest != rest2 || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: got %q with %q left, %v; in pieces of %d %q with %q, %v", text, data, rest, err, size, data2, rest2, err2)
		}
		if err != nil {
			return
		}
		anew, again := "0\r\n\r\n"+rest, http1.Chunked()
		if data != "" {
			anew = fmt.Sprintf("%x\r\n%s\r\n%s", len(data), data, anew)
		}
		if data3, rest3, err := take(&again, anew, 4096); data3 != data || rest3 != rest || err != nil {
			t.Errorf("%q: got %q with %q left, %v, want %q with %q", anew, data3, rest3, err, data, rest)
		}
	})
}
