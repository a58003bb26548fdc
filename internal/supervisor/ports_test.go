package supervisor_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/internal/supervisor"
)

// ownHost is an address of loopback that nothing else uses: a port that was free a moment ago is free.
const ownHost = "127.77.0.1"

// withPorts is a supervisor whose roles may ask for TCP ports.
func withPorts(t *testing.T) *running {
	t.Helper()
	return begin(t, func(o *supervisor.Options) {
		o.Ports = &supervisor.Ports{Socket: "ports.sock", Host: ownHost, Setting: "exposedPort"}
	})
}

func (r *running) portsSocket() string { return filepath.Join(r.State(), "ports.sock") }

// asker is a role that asks for ports.
func (r *running) asker(t *testing.T) *supervisor.PortsClient {
	t.Helper()
	c := supervisor.NewPortsClient(r.portsSocket())
	t.Cleanup(c.Close)
	return c
}

// free are addresses that nobody listens at.
func free(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", ownHost+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses
}

// openAll asks for addresses and wants every one.
func openAll(t *testing.T, c *supervisor.PortsClient, addresses ...string) []net.Listener {
	t.Helper()
	opened, err := c.Open(t.Context(), addresses)
	if err != nil {
		t.Fatal(err)
	}
	var all []net.Listener
	for i, o := range opened {
		if o.Fault != "" || o.Address != addresses[i] {
			t.Fatalf("port %s: got %s, %s", addresses[i], o.Address, o.Fault)
		}
		t.Cleanup(func() { o.Listener.Close() })
		all = append(all, o.Listener)
	}
	if len(all) != len(addresses) {
		t.Fatalf("got %d listeners, want %d", len(all), len(addresses))
	}
	return all
}

// greet connects and has what accepts there answer.
func greet(t *testing.T, address string, ln net.Listener) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello(t, conn, ln)
}

// hello sends a word over the next connection of ln, and wants conn to get it.
func hello(t *testing.T, conn net.Conn, ln net.Listener) {
	t.Helper()
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(accepted, "hello")
	accepted.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if said, err := io.ReadAll(conn); string(said) != "hello" {
		t.Fatalf("got %q, %v, want hello", said, err)
	}
}

func refused(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

func TestPortsAreTheSetThatWasAskedForLast(t *testing.T) {
	r := withPorts(t)
	c := r.asker(t)
	at := free(t, 3)
	first := openAll(t, c, at[0], at[1])
	greet(t, at[0], first[0])
	greet(t, at[1], first[1])

	for _, ln := range first {
		ln.Close()
	}
	second := openAll(t, c, at[1], at[2])
	greet(t, at[1], second[0])
	greet(t, at[2], second[1])
	if !refused(at[0]) {
		t.Errorf("%s is open, and nobody asks for it any more", at[0])
	}

	for _, ln := range second {
		ln.Close()
	}
	openAll(t, c)
	for _, address := range at {
		if !refused(address) {
			t.Errorf("%s is open, and nothing was asked for", address)
		}
	}
}

// What waits in a listener is the next process's.
func TestConnectionsWaitForTheNextProcessThatAsks(t *testing.T) {
	r := withPorts(t)
	at := free(t, 1)
	old := r.asker(t)
	openAll(t, old, at[0])[0].Close() // as a process that is killed
	old.Close()
	var waiting []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", at[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waiting = append(waiting, conn)
	}
	ln := openAll(t, r.asker(t), at[0])[0]
	for _, conn := range waiting {
		hello(t, conn, ln)
	}
}

// During a hand-over both ask. What the older one knows may be out of date.
func TestPortsAreTheNewestProcessesToAskFor(t *testing.T) {
	r := withPorts(t)
	at := free(t, 2)
	older, newer := r.asker(t), r.asker(t)
	openAll(t, older, at[0])
	ln := openAll(t, newer, at...)[1]
	if _, err := older.Open(t.Context(), at[:1]); !errors.Is(err, supervisor.ErrSuperseded) {
		t.Fatalf("got %v, want ErrSuperseded", err)
	}
	greet(t, at[1], ln)

	newer.Close() // it failed, and the older one goes on
	eventually(t, "the older one may ask again", func() bool {
		_, err := older.Open(t.Context(), at[:1])
		return err == nil
	})
	ln.Close()
	if !refused(at[1]) {
		t.Errorf("%s is open, and nobody asks for it any more", at[1])
	}
}

func TestPortsThatCannotBeOpenedSayWhy(t *testing.T) {
	r := withPorts(t)
	busy, err := net.Listen("tcp", ownHost+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	good := free(t, 1)[0]
	local, err := net.Listen("tcp", supervisor.Loopback+":0") // another host may have the port still
	if err != nil {
		t.Fatal(err)
	}
	local.Close()
	want := map[string][]string{
		local.Addr().String(): nil, // ports of this machine only are opened whatever the host is
		busy.Addr().String():  {"already in use by", "pid " + strconv.Itoa(os.Getpid()), "exposedPort"},
		"0.0.0.0:6379":        {`want the host "127.77.0.1" or 127.0.0.1`, `got "0.0.0.0"`},
		ownHost + ":0":        {"want HOST:PORT with a port from 1 to 65535"},
		"6379":                {"want HOST:PORT"},
		good:                  nil,
	}
	asked := []string{busy.Addr().String(), "0.0.0.0:6379", good, ownHost + ":0", "6379", local.Addr().String()}
	opened, err := r.asker(t).Open(t.Context(), asked)
	if err != nil || len(opened) != len(asked) {
		t.Fatalf("got %v, %v", opened, err)
	}
	for _, o := range opened {
		if o.Listener != nil {
			defer o.Listener.Close()
		}
		if (o.Listener != nil) != (want[o.Address] == nil) {
			t.Errorf("%s: got listener %v, fault %q", o.Address, o.Listener, o.Fault)
		}
		for _, part := range want[o.Address] {
			if !strings.Contains(o.Fault, part) {
				t.Errorf("%s: got %q, want it to say %q", o.Address, o.Fault, part)
			}
		}
	}
	i := slices.IndexFunc(opened, func(o supervisor.OpenedPort) bool { return o.Address == good })
	greet(t, good, opened[i].Listener)
}

// More than one message carries are not asked for by anybody in earnest.
func TestThereIsALimitOfPorts(t *testing.T) {
	r := withPorts(t)
	at := free(t, 252)
	opened, err := r.asker(t).Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	faults := 0
	for _, o := range opened {
		if o.Fault != "" {
			faults++
			if !strings.Contains(o.Fault, "250 TCP ports are open already") {
				t.Errorf("got %q, want the limit", o.Fault)
			}
			continue
		}
		o.Listener.Close()
	}
	if faults != 2 {
		t.Errorf("got %d faults, want 2", faults)
	}
}

func TestAnAskerThatTalksNonsenseIsCutOff(t *testing.T) {
	r := withPorts(t)
	info, err := os.Stat(r.portsSocket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: got mode %v, %v, want 0600", info.Mode(), err)
	}
	for name, said := range map[string]string{
		"no JSON":    "ports, please\n",
		"too much":   `{"want": ["` + strings.Repeat("x", 70<<10) + `"]}` + "\n",
		"of a shape": `{"want": {"port": 1}}` + "\n",
	} {
		conn, err := net.Dial("unix", r.portsSocket())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go io.WriteString(conn, said)
		if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %q, %v, want the end", name, answer, err)
		}
		conn.Close()
	}
	openAll(t, r.asker(t), free(t, 1)...)
}

// Fields that a supervisor does not know are those of a newer ingress.
func TestUnknownFieldsOfAnAskerAreIgnored(t *testing.T) {
	r := withPorts(t)
	conn, err := net.Dial("unix", r.portsSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(conn, `{"want": [], "backlog": 7}`)
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	var answer map[string]any
	if err != nil || json.Unmarshal(line, &answer) != nil || len(answer) > 0 {
		t.Errorf("got %q, %v, want {}", line, err)
	}
}
