package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"penstock/internal/supervisor"
)

func TestMain(m *testing.M) {
	// The scripts mostly wait, so more of them run at a time than there are cores.
	if err := flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"penstock": main})
}

// TestScripts runs the real program: testdata/script/*.txtar. Each script has a data folder and ports of its own and a
// server with the fake runtime.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			data := filepath.Join(env.WorkDir, "d")
			for name, value := range map[string]string{
				"PENSTOCK_DATA":    data,
				"PENSTOCK_RUN":     filepath.Join(env.WorkDir, "r"),
				"PENSTOCK_RUNTIME": "fake",
				"PENSTOCK_HTTP":    "127.0.0.1:0",
				"PENSTOCK_HTTPS":   "127.0.0.1:0",
				"PENSTOCK_ARM":     "127.0.0.1:0",
				"PENSTOCK_STAY_UP": "100ms",
				"HOME":             env.WorkDir,
			} {
				env.Setenv(name, value)
			}
			env.Values[listenersKey{}] = map[string]net.Listener{}
			env.Defer(func() { endServer(t, data) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"get-stdout": getStdout,
			"eventually": eventually,
			"tcp-stdout": tcpStdout,
			"free-port":  freePort,
			"expand":     expand,
			"signal":     sendSignal,
			"listen":     listen,
			"unlisten":   unlisten,
			"logged":     logged,
		},
	})
}

// endServer ends what a failed script left running.
func endServer(t *testing.T, data string) {
	pid, err := supervisor.Running(data)
	if err != nil || pid == 0 {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(20 * time.Second); pid != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("server %d of data folder %s does not end", pid, data)
			return
		}
		pid, _ = supervisor.Running(data)
	}
}

// exits CODE PROGRAM ARGS... wants that exit code and no other.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// eventually runs a command until what it prints matches a pattern.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: eventually PATTERN COMMAND [ARG ...]")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("nothing that %v printed within a minute matches %q", args[1:], args[0])
		}
	}
}

// get-stdout fetches the URL that the last command printed, over loopback whatever host it names.
func getStdout(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 1 || neg {
		ts.Fatalf("usage: get-stdout [CERTIFICATES]")
	}
	trusted := x509.NewCertPool()
	if len(args) == 1 && !trusted.AppendCertsFromPEM([]byte(ts.ReadFile(args[0]))) {
		ts.Fatalf("no certificate in %s", args[0])
	}
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: trusted},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}}
	resp, err := c.Get(strings.TrimSpace(ts.ReadFile("stdout")))
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n%s\n", resp.Status, b)
}

// tcp-stdout asks for / over the TCP address that the last command printed.
func tcpStdout(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 || neg {
		ts.Fatalf("usage: tcp-stdout")
	}
	address, ok := strings.CutPrefix(strings.TrimSpace(ts.ReadFile("stdout")), "tcp://")
	if !ok {
		ts.Fatalf("stdout has no tcp:// address")
	}
	conn, err := net.Dial("tcp", address)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	ts.Check(err)
	ts.Check(conn.(*net.TCPConn).CloseWrite())
	b, err := io.ReadAll(conn)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", b)
}

// expand FILE puts variables into a file.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// free-port VARIABLE puts a port that nobody listens on into the variable.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: free-port VARIABLE")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer ln.Close()
	ts.Setenv(args[0], strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
}

// logged waits until the server's log has what the expression matches.
func logged(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: logged EXPRESSION")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	path := filepath.Join(ts.Getenv("PENSTOCK_DATA"), "server.log")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(path)
		ts.Check(err)
		if want.Match(b) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("server log has nothing like %q:\n%s", args[0], b)
		}
	}
}

// signal NAME sends a signal to the server of the data folder. TERM also waits for its end.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}
	if len(args) != 1 || signals[args[0]] == 0 || neg {
		ts.Fatalf("usage: signal HUP|TERM")
	}
	data := ts.Getenv("PENSTOCK_DATA")
	pid, err := supervisor.Running(data)
	ts.Check(err)
	if pid == 0 {
		ts.Fatalf("no server runs on %s", data)
	}
	ts.Check(syscall.Kill(pid, signals[args[0]]))
	for deadline := time.Now().Add(20 * time.Second); args[0] == "TERM" && pid != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("server %d does not end", pid)
		}
		pid, err = supervisor.Running(data)
		ts.Check(err)
	}
}

// listenersKey leads to what a script listens on, by variable.
type listenersKey struct{}

// unlisten VARIABLE gives a port back.
func unlisten(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: unlisten VARIABLE")
	}
	ts.Check(ts.Value(listenersKey{}).(map[string]net.Listener)[args[0]].Close())
}

// listen NAME takes a port until the script ends and puts its address into the variable.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: listen VARIABLE")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	ts.Value(listenersKey{}).(map[string]net.Listener)[args[0]] = ln
	ts.Setenv(args[0], ln.Addr().String())
	ts.Setenv(args[0]+"_PORT", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	ts.Setenv("PID", fmt.Sprint(os.Getpid()))
}

// What cannot be written is a failure of every command, and not only of those that look.
func TestFullOutput(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"version", "app --help", "completion bash", "init --help", "az-env --help"} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		link := filepath.Join(dir, "penstock") // testscript runs main by that name
		if err := os.Symlink(program, link); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(link, strings.Fields(command)...)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = full, &said
		_ = cmd.Run() // its code follows
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "standard output: ") {
			t.Errorf("%s: exit %d, %q; want 1 and why", command, code, said.String())
		}
		full.Close()
	}
}
