package remote

import (
	"net/http"
	"strings"
)

// challenge is the authentication that a registry requires: RFC 9110 section 11.6.1, with the parameters of the
// distribution project's token authentication.
type challenge struct {
	scheme                string // "basic", "bearer"
	realm, service, scope string
}

// challenges parses the WWW-Authenticate headers of a response. Invalid ones are ignored.
func challenges(h http.Header) []challenge {
	var list []challenge
	for _, value := range h.Values("WWW-Authenticate") {
		if len(value) > maxWords {
			continue
		}
		scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		c := challenge{scheme: strings.ToLower(scheme)}
		for rest != "" {
			var name, v string
			name, rest, _ = strings.Cut(rest, "=")
			if v, rest = parameter(rest); rest != "" {
				rest = strings.TrimLeft(rest, ", \t")
			}
			switch strings.ToLower(strings.Trim(name, ", \t")) {
			case "realm":
				c.realm = v
			case "service":
				c.service = v
			case "scope":
				c.scope = v
			}
		}
		list = append(list, c)
	}
	return list
}

// parameter splits a token or quoted string off the front of s.
func parameter(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if before, after, ok := strings.Cut(s, ","); ok {
			return strings.TrimSpace(before), after
		}
		return strings.TrimSpace(s), ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
