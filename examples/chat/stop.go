package main

import "strings"

// stopper ends a text before the first stop sequence. It holds back text that may be the beginning of one, so no part of a
// stop sequence is ever sent.
type stopper struct {
	stops []string
	held  string
}

// push adds a token. It returns what may be sent now, and whether a stop sequence was met.
func (s *stopper) push(token string) (text string, met bool) {
	s.held += token
	end := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end >= 0 {
		text, s.held = s.held[:end], ""
		return text, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
			}
		}
	}
	text, s.held = s.held[:len(s.held)-keep], s.held[len(s.held)-keep:]
	return text, false
}

// rest returns what was held back, at the end of the text.
func (s *stopper) rest() string {
	text := s.held
	s.held = ""
	return text
}
