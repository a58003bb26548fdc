package link

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// frame is one line of the protocol.
type frame struct {
	Table  *Table  `json:"table,omitempty"`
	Change *Change `json:"change,omitempty"`
	Report *Report `json:"report,omitempty"`
}

// receive reads frames until the other side disconnects, take fails or, if silence is above 0, nothing arrives for that
// long.
func receive(conn net.Conn, silence time.Duration, take func(frame) error) error {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, MaxFrame)
	for {
		if silence > 0 {
			if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
				return err
			}
		}
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			return io.EOF
		}
		var f frame
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := take(f); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
	}
}
