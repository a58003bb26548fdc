package supervisor_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/internal/supervisor"
)

// The test binary is also the program that the supervisor starts: these variables say so.
const (
	roleVariable  = "SUPERVISOR_TEST_ROLE"
	modeVariable  = "SUPERVISOR_TEST_MODE"  // file that says how a role that starts now behaves
	diaryVariable = "SUPERVISOR_TEST_DIARY" // file that roles write what happens to
	dataVariable  = "SUPERVISOR_TEST_DATA"
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "supervisor":
		os.Exit(superviseMain())
	default:
		os.Exit(roleMain(role))
	}
}

// roleMain serves HTTP on the first listener it inherited, answering with its pid.
func roleMain(role string) int {
	mode, err := os.ReadFile(os.Getenv(modeVariable))
	if err != nil {
		return 7
	}
	if string(mode) == "die" {
		return 3
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	spec := ""
	for _, a := range os.Args {
		if v, ok := strings.CutPrefix(a, "--inherit="); ok {
			spec = v
		}
	}
	in, err := supervisor.Inherit(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	if role == "second" {
		if err := supervisor.Exclusive(ctx, os.Getenv(dataVariable), role); err != nil {
			return 5
		}
	}
	ln := in.Listeners[strings.Split(spec, ",")[0]]
	s := &site{in: in, diary: func(what string) { write(os.Getenv(diaryVariable), role+" "+what) }}
	s.http = &http.Server{Handler: s, ConnState: s.count}
	go s.http.Serve(ln)
	if packets := in.Packets["packets"]; packets != nil {
		go answer(packets)
		context.AfterFunc(ctx, func() { packets.Close() })
	}
	if string(mode) == "silent" {
		<-ctx.Done()
		return 0
	}
	in.Ready()
	<-ctx.Done()
	s.diary("got SIGTERM")
	if string(mode) == "stubborn" {
		select {}
	}
	s.drain(ln)
	s.diary("ended")
	return 0
}

// answer sends each packet's sender the pid.
func answer(packets net.PacketConn) {
	buf := make([]byte, 100)
	for {
		_, from, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		packets.WriteTo(fmt.Append(nil, os.Getpid()), from)
	}
}

// site drains as an ingress has to: connections are told to close with their next answer, never cut while idle.
type site struct {
	in       *supervisor.Inherited
	http     *http.Server
	diary    func(string)
	draining atomic.Bool
	open     atomic.Int64
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	switch r.URL.Path {
	case "/stop":
		s.in.Stop()
	case "/stream":
		for range 20 {
			fmt.Fprintln(w, "line")
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	default:
		io.Copy(io.Discard, r.Body)
	}
	fmt.Fprint(w, os.Getpid())
}

func (s *site) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Add(-1)
	}
}

func (s *site) drain(ln net.Listener) {
	s.draining.Store(true)
	ln.Close()
	for deadline := time.Now().Add(time.Minute); s.open.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	s.http.Shutdown(context.Background())
}

func write(path, line string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintln(f, line)
		f.Close()
	}
}

// superviseMain is a whole server in a process of its own, to be killed.
func superviseMain() int {
	data := os.Getenv(dataVariable)
	exe, err := os.Executable()
	if err != nil {
		return 1
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := supervisor.New(supervisor.Options{
		Data: data, Run: data + "/run", Exe: exe, Log: log,
		Listeners: []supervisor.Listener{
			{Name: "http", Network: "tcp", Address: os.Getenv("SUPERVISOR_TEST_ADDRESS"), Setting: "--http"},
			{Name: "other", Network: "unix", Address: "other.sock"},
			{Name: "packets", Network: "udp", Address: "127.0.0.1:0"},
		},
		ReadyLimit: 10 * time.Second, StopLimit: 10 * time.Second,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err = s.Run(ctx, roles(data), nil, func() { write(data+"/ready", "ready") })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// roles are the two that all tests run: first hands over with overlap, second without.
func roles(dir string) []supervisor.Role {
	env := func(role string) []string {
		return []string{roleVariable + "=" + role, modeVariable + "=" + dir + "/mode", diaryVariable + "=" + dir + "/diary", dataVariable + "=" + dir}
	}
	return []supervisor.Role{
		{Name: "first", Env: env("first"), Listeners: []string{"http", "packets"}, Overlap: true, DrainLimit: 20 * time.Second},
		{Name: "second", Env: env("second"), Listeners: []string{"other"}},
	}
}
