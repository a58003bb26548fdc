package port_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"penstock/internal/supervisor/port"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41873 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C5B2 01 00000000:00000000 00:00000000 00000000     0        0 41999 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0000000000000000 100 0 0 10 0
`

const table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5555 1 0000000000000000 100 0 0 10 0
`

func TestListening(t *testing.T) {
	tests := map[string]struct {
		table string
		want  []string
	}{
		"only sockets that listen": {table, []string{"127.0.0.1:8080 41873", "0.0.0.0:22 1234"}},
		"version 6":                {table6, []string{"[::1]:8081 5555"}},
		"nothing":                  {"", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sockets, err := port.Listening(strings.NewReader(tt.table))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range sockets {
				got = append(got, s.Addr.String()+" "+s.Inode)
			}
			if strings.Join(got, ", ") != strings.Join(tt.want, ", ") {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzListening(f *testing.F) {
	f.Add(table)
	f.Add(table6)
	f.Add("x x: zz:1 0 0A 1 2 3 4 5 6")
	f.Fuzz(func(t *testing.T, table string) {
		sockets, err := port.Listening(strings.NewReader(table))
		if err != nil {
			return
		}
		for _, s := range sockets {
			if !s.Addr.IsValid() || s.Inode == "" {
				t.Errorf("got %+v of %q, want a whole socket", s, table)
			}
		}
	})
}

func TestHolders(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, service, _ := net.SplitHostPort(ln.Addr().String())
	for _, address := range []string{ln.Addr().String(), "localhost:" + service, ":" + service, "0.0.0.0:" + service} {
		got := port.Holders(address)
		if len(got) != 1 || got[0].PID != os.Getpid() || !strings.Contains(got[0].String(), "pid") {
			t.Errorf("%s: got %v, want this process, %d", address, got, os.Getpid())
		}
	}
	for _, address := range []string{"127.0.0.2:" + service, "127.0.0.1:0", "nonsense"} {
		if got := port.Holders(address); len(got) > 0 {
			t.Errorf("%s: got %v, want nobody", address, got)
		}
	}
}
