package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// maxFields bounds the fields of a response's head, as Envoy does
// (max_headers_count of its HTTP protocol options).
const maxFields = 100

var errTooLarge = fmt.Errorf("%w: the head is larger than %d KiB", ErrProtocol, largeSize>>10)

// Head is the first part of a response.
type Head struct {
	Status  int
	Upgrade string // of a 101
}

// Interim says whether the response itself is still to come.
func (h Head) Interim() bool { return h.Status < 200 && h.Status != http.StatusSwitchingProtocols }

// ReadHead waits for the head of the response to a request with that method and puts its fields into h, without those
// that concern this connection only. After an interim head it is called again.
func (c *Conn) ReadHead(method string, h http.Header) (Head, error) {
	var end, lines int
	for {
		var err error
		if end, lines, err = headEnd(c.in[c.r:c.w]); err != nil {
			return Head{}, err
		}
		if end >= 0 {
			break
		}
		if err := c.more(false); err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				err = ErrTruncated
			}
			return Head{}, err
		}
	}
	text := string(c.in[c.r : c.r+end])
	c.r += end
	head, framed, err := parseHead(text, lines, method, h)
	if err != nil {
		return Head{}, err
	}
	if !head.Interim() {
		c.body = framed
	}
	return head, nil
}

// headEnd is the length of the section up to and with its empty line, or -1, and the number of lines before that one.
// RFC 9112 section 2.2 lets a recipient take a lone LF for the end of a line.
func headEnd(p []byte) (n, lines int, err error) {
	for {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			return -1, lines, nil
		}
		start := n
		n += i + 1
		if i == 0 || i == 1 && p[start] == '\r' {
			return n, lines, nil
		}
		if lines++; lines > maxFields+1 {
			return 0, 0, fmt.Errorf("%w: more than %d fields", ErrProtocol, maxFields)
		}
	}
}

func nextLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parseHead takes a head apart. lines is how many it has.
func parseHead(text string, lines int, method string, h http.Header) (Head, body, error) {
	line, rest := nextLine(text)
	head, minor, err := parseStatus(line)
	if err != nil {
		return Head{}, body{}, err
	}
	own := hop{length: -1}
	values := make([]string, 0, lines)
	for {
		if line, rest = nextLine(rest); line == "" {
			break
		}
		name, value, err := parseField(line)
		if err != nil {
			return Head{}, body{}, err
		}
		if took, err := own.take(name, value); err != nil {
			return Head{}, body{}, err
		} else if took {
			continue
		}
		if have := h[name]; have != nil {
			h[name] = append(have, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
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
	case framed.framing == framedLength, method == http.MethodHead && own.length >= 0,
		head.Status == http.StatusNotModified && own.length >= 0:
		h["Content-Length"] = []string{own.lengthText}
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
	if head.Status < 100 || !clean(line[12:]) {
		return bad()
	}
	return head, int(line[7] - '0'), nil
}

// parseField reads "Name: value" and returns the name in its canonical form.
func parseField(line string) (name, value string, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", fmt.Errorf("%w: a folded field", ErrProtocol)
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !Token(name) {
		return "", "", fmt.Errorf("%w: field %.60q", ErrProtocol, line)
	}
	value = strings.Trim(value, " \t")
	if !clean(value) {
		return "", "", fmt.Errorf("%w: a control character in the value of field %.60q", ErrProtocol, name)
	}
	return textproto.CanonicalMIMEHeaderKey(name), value, nil
}

// parseTrailer reads the fields after a chunked body. Those that frame, route or describe a message have no business
// there (RFC 9110 section 6.5.1) and are left out.
func parseTrailer(text string, lines int) (http.Header, error) {
	h := make(http.Header, lines)
	for {
		var line string
		if line, text = nextLine(text); line == "" {
			return h, nil
		}
		name, value, err := parseField(line)
		if err != nil {
			return nil, err
		}
		if ForbiddenInTrailer(name) {
			continue
		}
		h[name] = append(h[name], value)
	}
}

// ForbiddenInTrailer says whether a field, by its canonical name, may not follow a body.
func ForbiddenInTrailer(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Content-Encoding", "Content-Range", "Content-Type", "Host", "Keep-Alive",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Authorization", "Set-Cookie",
		"Cache-Control", "Location", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto":
		return true
	}
	return false
}

// hop collects the fields that are about this connection.
type hop struct {
	length     int64 // -1: none
	lengthText string
	coding     string
	named      []string // in Connection
	upgrade    string
	close      bool
	keepAlive  bool
}

// take says whether the field is one of those.
func (o *hop) take(name, value string) (bool, error) {
	switch name {
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return true, fmt.Errorf("%w: content-length %.30q", ErrProtocol, value)
		}
		if o.length >= 0 && o.length != int64(n) {
			return true, fmt.Errorf("%w: content-length is both %d and %d", ErrProtocol, o.length, n)
		}
		o.length, o.lengthText = int64(n), value
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

// frame applies RFC 9112 section 6.3. What it leaves to the recipient is refused where two recipients could differ.
func (o *hop) frame(status, minor int, method string) (body, error) {
	b := body{close: o.close || minor == 0 && !o.keepAlive}
	if o.coding != "" && (o.length >= 0 || minor == 0) {
		return b, fmt.Errorf("%w: transfer-encoding with content-length or HTTP/1.0", ErrProtocol)
	}
	switch {
	case method == http.MethodHead, status == http.StatusNotModified:
	case status < 200, status == http.StatusNoContent:
		// Some servers send a length or a coding here, which means nothing; whatever follows is not a second response.
		b.close = b.close || o.coding != "" || o.length > 0
	case o.coding != "":
		b.framing = framedChunks
	case o.length >= 0:
		b.framing, b.left = framedLength, o.length
	default:
		b.framing, b.close = framedClose, true
	}
	return b, nil
}

// clean says whether s is free of control characters.
func clean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// Token says whether s can be a method or name a field (RFC 9110 section 5.6.2).
func Token(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokenBytes = func() (t [0x80]bool) {
	for c := byte('0'); c <= 'z'; c++ {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}()
