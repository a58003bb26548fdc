// Package terminal has the messages on the WebSocket of exec. They are those of az containerapp exec (azure-cli,
// containerapp/_ssh_utils.py), and an exit code.
//
//	0 0 bytes    to the command's standard input; no bytes: its end, where there is no terminal
//	0 1 bytes    from its standard output
//	0 2 bytes    from its standard error
//	0 4 JSON     the size of the terminal: {"Width": 80, "Height": 24}
//	2 text       an error, before the end
//
// All messages are binary. The server closes the connection with status 1000 and the exit code in the reason, as in
// "exit 3". az ignores the reason.
package terminal

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kind is the kind of a message, in its first byte or two.
type Kind string

const (
	Input  Kind = "\x00\x00"
	Output Kind = "\x00\x01"
	Errors Kind = "\x00\x02"
	Resize Kind = "\x00\x04"
	Fault  Kind = "\x02"
)

// MaxMessage bounds the size of a message.
const MaxMessage = 1 << 20

// Message returns a message of a kind with its data.
func Message(k Kind, data []byte) []byte { return append([]byte(k), data...) }

// Parse splits a message into its kind and its data.
func Parse(message []byte) (Kind, []byte, error) {
	for _, k := range []Kind{Input, Output, Errors, Resize, Fault} {
		if rest, ok := strings.CutPrefix(string(message), string(k)); ok {
			return k, []byte(rest), nil
		}
	}
	return "", nil, fmt.Errorf("want a message that begins with a known kind, got % x", message[:min(len(message), 2)])
}

// Size is the size of a terminal, in characters.
type Size struct{ Width, Height int }

// ParseSize parses the data of a Resize.
func ParseSize(data []byte) (Size, error) {
	var s Size
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("size of the terminal: %w", err)
	}
	const most = 1<<16 - 1 // the kernel has 16 bits for it
	if s.Width < 1 || s.Width > most || s.Height < 1 || s.Height > most {
		return s, fmt.Errorf("size of the terminal: want 1 to %d each way, got %d by %d", most, s.Width, s.Height)
	}
	return s, nil
}

// MarshalSize returns the data of a Resize.
func MarshalSize(s Size) []byte {
	return fmt.Appendf(nil, `{"Width": %d, "Height": %d}`, s.Width, s.Height)
}

// Reason returns the close reason for an exit code.
func Reason(code int) string { return "exit " + strconv.Itoa(code) }

// ParseReason returns the exit code in a close reason.
func ParseReason(reason string) (int, error) {
	text, ok := strings.CutPrefix(reason, "exit ")
	code, err := strconv.Atoi(text)
	if !ok || err != nil || code < 0 || code > 255 {
		return 0, errors.New("the connection ended without the command's exit code")
	}
	return code, nil
}
