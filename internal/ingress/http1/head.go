package http1

import (
	"bytes"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// MaxFields bounds the fields of a head, as in Envoy (max_headers_count of its HTTP protocol options).
const MaxFields = 100

// ErrTooManyFields means that a head or trailer has more fields than allowed.
var ErrTooManyFields = fmt.Errorf("%w: too many fields", ErrMalformed)

// HeadEnd returns the length of a head, including its empty line, or -1 if that has not come, and the number of lines before
// it. Most bounds the fields. RFC 9112 section 2.2 allows a recipient to accept a lone LF as the end of a line.
func HeadEnd(p []byte, most int) (n, lines int, err error) {
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
		if lines++; lines > most+1 {
			return 0, 0, ErrTooManyFields
		}
	}
}

// NextLine splits off the first line.
func NextLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// ParseField reads "Name: value", a line that is not empty, and returns the name in its canonical form.
func ParseField(line string) (name, value string, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", fmt.Errorf("%w: a folded field", ErrMalformed)
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !Token(name) {
		return "", "", fmt.Errorf("%w: field %.60q", ErrMalformed, line)
	}
	value = strings.Trim(value, " \t")
	if !Clean(value) {
		return "", "", fmt.Errorf("%w: a control character in the value of field %.60q", ErrMalformed, name)
	}
	return textproto.CanonicalMIMEHeaderKey(name), value, nil
}

// Add adds a field to h. The first value of each name is stored in values, which all fields of one head share and which must
// have room for them.
func Add(h http.Header, values *[]string, name, value string) {
	if have := h[name]; have != nil {
		h[name] = append(have, value)
		return
	}
	v := append(*values, value)
	*values = v
	h[name] = v[len(v)-1 : len(v) : len(v)]
}

// ParseLength parses a Content-Length: only digits, at most 63 bits.
func ParseLength(value string) (int64, error) {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: content-length %.30q", ErrMalformed, value)
	}
	return int64(n), nil
}

// parseTrailer parses the fields after a chunked body. Fields that frame, route or describe a message are not allowed there
// (RFC 9110 section 6.5.1) and are dropped.
func parseTrailer(text string, lines int) (http.Header, error) {
	h := make(http.Header, lines)
	for {
		var line string
		if line, text = NextLine(text); line == "" {
			return h, nil
		}
		name, value, err := ParseField(line)
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
		"Cache-Control", "Location", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Penstock-Hops":
		return true
	}
	return false
}

// Clean says whether s is free of control characters.
func Clean(s string) bool {
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
