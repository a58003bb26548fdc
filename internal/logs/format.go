package logs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"penstock/internal/resource"
)

// A segment is a text file of JSON objects, one a line. The first is the header; it names the app, so that the records
// need not. Fields that a reader does not know are passed over; a change that old readers would misread raises the
// version.

const (
	consoleFormat = "penstock-console"
	systemFormat  = "penstock-system"
	formatVersion = 1

	// maxRecord is the longest record that a reader takes: the longest line, each byte written as \u00XX, and its names.
	maxRecord = 6<<20 + 64<<10
)

type header struct {
	Format  string      `json:"format"`
	Version int         `json:"version"`
	App     resource.ID `json:"app"`
}

// lineRecord is written by lineEncoder.
type lineRecord struct {
	At        time.Time `json:"at"`
	Revision  string    `json:"revision"`
	Replica   string    `json:"replica"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"`
	Text      string    `json:"text"`
	Bytes     []byte    `json:"bytes"` // in place of text when that is no UTF-8
	Partial   bool      `json:"partial"`
}

type eventRecord struct {
	At       time.Time `json:"at"`
	Warning  bool      `json:"warning,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Replica  string    `json:"replica,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Source   string    `json:"source,omitempty"`
	Duration int64     `json:"durationNs,omitempty"`
}

func encodeHeader(b *bytes.Buffer, format string, app resource.ID) error {
	return encode(b, header{format, formatVersion, app})
}

// lineEncoder writes the lines of one source. What all of them have in common is made once, and the rest is put together
// by hand: a container that prints a lot should not take much of the machine for it (json.Encoder: five times as much).
type lineEncoder struct{ common []byte }

func newLineEncoder(src Source) lineEncoder {
	var b []byte
	for _, field := range []struct{ name, value string }{
		{"revision", src.Revision}, {"replica", src.Replica}, {"container", src.Container}, {"stream", src.Stream},
	} {
		b = append(b, `,"`+field.name+`":`...)
		b = appendQuoted(b, field.value)
	}
	return lineEncoder{b}
}

// append adds the record of a line to b.
func (e lineEncoder) append(b []byte, at time.Time, text []byte, partial bool) []byte {
	b = append(b, `{"at":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = append(b, e.common...)
	if utf8.Valid(text) {
		b = append(b, `,"text":`...)
		b = appendQuoted(b, text)
	} else {
		b = append(b, `,"bytes":"`...)
		b = base64.StdEncoding.AppendEncode(b, text)
		b = append(b, '"')
	}
	if partial {
		b = append(b, `,"partial":true`...)
	}
	return append(b, "}\n"...)
}

// appendQuoted adds s as a JSON string (RFC 8259, section 7).
func appendQuoted[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append(append(b, s[done:]...), '"')
}

func encodeEvent(b *bytes.Buffer, e resource.Event) error {
	return encode(b, eventRecord{e.At.UTC(), e.Warning, e.Revision, e.Replica, e.Reason, e.Message, e.Source, int64(e.Duration)})
}

// encode fails for a time that JSON cannot write (after the year 9999) and writes nothing then.
func encode(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // half of what models print has a < in it
	return enc.Encode(v)
}

var errNoRecord = errors.New("no record")

func decodeHeader(line []byte, format string) (header, error) {
	var h header
	if err := json.Unmarshal(line, &h); err != nil {
		return header{}, fmt.Errorf("segment header: %w", err)
	}
	if h.Format != format || h.Version != formatVersion {
		return header{}, fmt.Errorf("segment header: want format %s version %d, got %q version %d", format, formatVersion, h.Format, h.Version)
	}
	return h, nil
}

func decodeLine(record []byte, app resource.ID) (Line, error) {
	var r lineRecord
	if err := json.Unmarshal(record, &r); err != nil {
		return Line{}, err
	}
	if r.At.IsZero() {
		return Line{}, errNoRecord
	}
	if r.Bytes != nil {
		r.Text = string(r.Bytes)
	}
	return Line{r.At, Source{app, r.Revision, r.Replica, r.Container, r.Stream}, r.Text, r.Partial}, nil
}

func decodeEvent(record []byte, app resource.ID) (resource.Event, error) {
	var r eventRecord
	if err := json.Unmarshal(record, &r); err != nil {
		return resource.Event{}, err
	}
	if r.At.IsZero() {
		return resource.Event{}, errNoRecord
	}
	return resource.Event{
		At: r.At, Warning: r.Warning, App: app, Revision: r.Revision, Replica: r.Replica,
		Reason: r.Reason, Message: r.Message, Source: r.Source, Duration: time.Duration(r.Duration),
	}, nil
}

func segmentPath(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.log", number))
}

// segmentNumber reads the number out of a file's name; ok is false for other files.
func segmentNumber(name string) (number int, ok bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(digits)
	return number, err == nil && number > 0 && filepath.Base(segmentPath("", number)) == name
}

// repair cuts the torn last line off a segment and returns the size that is left; 0 when nothing of it is whole.
func repair(path string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	block := make([]byte, 64<<10)
	for end := info.Size(); end > 0; {
		start := max(0, end-int64(len(block)))
		n, err := f.ReadAt(block[:end-start], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			size = start + int64(i) + 1
			break
		}
		end = start
	}
	if size == info.Size() {
		return size, nil
	}
	return size, f.Truncate(size)
}
