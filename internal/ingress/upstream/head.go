package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"penstock/internal/ingress/buffer"
	"penstock/internal/ingress/http1"
)

var errTooLarge = fmt.Errorf("%w: the head is larger than %d KiB", ErrProtocol, buffer.LargeSize>>10)

// Head is the first part of a response.
type Head struct {
	Status  int
	Upgrade string // of a 101
}

// Interim says whether this is a 1xx, after which the response follows.
func (h Head) Interim() bool { return h.Status < 200 && h.Status != http.StatusSwitchingProtocols }

// ReadHead waits for the head of the response to a request with method and puts its fields into h, without those that
// concern only this connection. The values are stored in the given slice, which is returned and must stay untouched while h is
// used. After an interim head it must be called again.
func (c *Conn) ReadHead(method string, h http.Header, values []string) (Head, []string, error) {
	var end, lines int
	for {
		var err error
		if end, lines, err = http1.HeadEnd(c.in[c.r:c.w], http1.MaxFields); err != nil {
			return Head{}, values, err
		}
		if end >= 0 {
			break
		}
		if err := c.more(false); err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				err = ErrTruncated
			}
			return Head{}, values, err
		}
	}
	text := string(c.in[c.r : c.r+end])
	c.r += end
	values = slices.Grow(values, lines)
	head, framed, err := parseHead(text, method, h, &values)
	if err != nil {
		return Head{}, values, err
	}
	if !head.Interim() {
		c.body = framed
	}
	return head, values, nil
}

// parseHead parses a head. Values has room for the fields in it.
func parseHead(text string, method string, h http.Header, values *[]string) (Head, body, error) {
	line, rest := http1.NextLine(text)
	head, minor, err := parseStatus(line)
	if err != nil {
		return Head{}, body{}, err
	}
	own := hop{length: -1}
	for {
		if line, rest = http1.NextLine(rest); line == "" {
			break
		}
		name, value, err := http1.ParseField(line)
		if err != nil {
			return Head{}, body{}, err
		}
		if took, err := own.take(name, value); err != nil {
			return Head{}, body{}, err
		} else if !took {
			http1.Add(h, values, name, value)
		}
	}
	for _, name := range own.named {
		delete(h, textproto.CanonicalMIMEHeaderKey(name))
	}
	framed, err := own.frame(head.Status, minor, method)
	if err != nil {
		return Head{}, body{}, err
	}
	switch {
	case head.Status == http.StatusSwitchingProtocols:
		head.Upgrade = own.upgrade
	case head.Interim():
	case framed.HasLength(), method == http.MethodHead && own.length >= 0,
		head.Status == http.StatusNotModified && own.length >= 0:
		http1.Add(h, values, "Content-Length", own.lengthText)
	}
	return head, framed, nil
}

// parseStatus reads "HTTP/1.1 200 OK".
func parseStatus(line string) (head Head, minor int, err error) {
	bad := func() (Head, int, error) {
		return Head{}, 0, fmt.Errorf("%w: status line %.60q", ErrProtocol, line)
	}
	if len(line) < len("HTTP/1.1 200") || line[:7] != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return bad()
	}
	if line[7] != '0' && line[7] != '1' {
		return bad()
	}
	for _, d := range []byte(line[9:12]) {
		if d < '0' || d > '9' {
			return bad()
		}
		head.Status = head.Status*10 + int(d-'0')
	}
	if head.Status < 100 || !http1.Clean(line[12:]) {
		return bad()
	}
	return head, int(line[7] - '0'), nil
}

// hop has the fields that concern only this connection.
type hop struct {
	length     int64 // -1: none
	lengthText string
	coding     string
	named      []string // in Connection
	upgrade    string
	close      bool
	keepAlive  bool
}

// take stores a field that concerns only this connection, and says whether it is one.
func (o *hop) take(name, value string) (bool, error) {
	switch name {
	case "Content-Length":
		n, err := http1.ParseLength(value)
		if err != nil {
			return true, err
		}
		if o.length >= 0 && o.length != n {
			return true, fmt.Errorf("%w: content-length is both %d and %d", ErrProtocol, o.length, n)
		}
		o.length, o.lengthText = n, value
	case "Transfer-Encoding":
		if o.coding != "" || !strings.EqualFold(value, "chunked") {
			return true, fmt.Errorf("%w: transfer-encoding %.30q, want chunked alone", ErrProtocol, value)
		}
		o.coding = value
	case "Connection":
		for word := range strings.SplitSeq(value, ",") {
			switch word = strings.Trim(word, " \t"); {
			case strings.EqualFold(word, "close"):
				o.close = true
			case strings.EqualFold(word, "keep-alive"):
				o.keepAlive = true
			case word != "":
				o.named = append(o.named, word)
			}
		}
	case "Upgrade":
		o.upgrade = value
	case "Keep-Alive", "Proxy-Connection", "Te", "Proxy-Authenticate":
	default:
		return false, nil
	}
	return true, nil
}

// body is the body of a response.
type body struct {
	http1.Body
	close bool // the connection ends with this response
}

// frame applies RFC 9112 section 6.3. Where the RFC lets recipients choose, so that two could differ, the response is refused.
func (o *hop) frame(status, minor int, method string) (body, error) {
	b := body{close: o.close || minor == 0 && !o.keepAlive}
	if o.coding != "" && (o.length >= 0 || minor == 0) {
		return b, fmt.Errorf("%w: transfer-encoding with content-length or HTTP/1.0", ErrProtocol)
	}
	switch {
	case method == http.MethodHead, status == http.StatusNotModified:
	case status < 200, status == http.StatusNoContent:
		// Some servers send a length or a coding here, which has no meaning; no bytes may follow.
		b.close = b.close || o.coding != "" || o.length > 0
	case o.coding != "":
		b.Body = http1.Chunked()
	case o.length >= 0:
		b.Body = http1.ByLength(o.length)
	default:
		b.Body, b.close = http1.ToTheEnd(), true
	}
	return b, nil
}

// cut returns the error for a read that failed inside a body.
func (b *body) cut(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case b.End():
		return io.EOF
	}
	return ErrTruncated
}
