package logs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"penstock/internal/resource"
)

// The payload of a block has one JSON object per line. Readers ignore unknown fields. A change that old readers would
// misread needs a new version in the schema.

const (
	consoleSchema = "penstock-console 2"
	systemSchema  = "penstock-system 2"
)

// lineRecord is written by lineEncoder.
type lineRecord struct {
	At        time.Time `json:"at"`
	Revision  string    `json:"revision"`
	Replica   string    `json:"replica"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"`
	Text      string    `json:"text"`
	Bytes     []byte    `json:"bytes"` // instead of text if it is not valid UTF-8
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

// lineEncoder encodes the lines of one source. It encodes the common fields once and builds the rest by hand, so that a
// container that prints a lot costs little CPU time. json.Encoder takes five times as long.
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

// append appends the record of a line to b.
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

// appendQuoted appends s as a JSON string (RFC 8259, section 7).
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

// encode appends v as JSON. For a time that JSON cannot represent (after the year 9999) it fails and appends nothing.
func encode(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // half of what models print contains a <
	return enc.Encode(v)
}

var errNoRecord = errors.New("no record")

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
