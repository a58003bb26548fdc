package proxy

import (
	"bufio"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// host is the host name in the requests.
const host = "bench.test"

// contender is one row of the results.
type contender struct {
	name    string
	version string
	start   func(ctx context.Context, dir, replica string) (*process, error)
}

const (
	nameDirect   = "direct"
	namePenstock = "penstock"
	nameNginx    = "nginx"
	nameGo       = "ReverseProxy"
	nameCaddy    = "caddy"
)

// contenders returns all contenders that are available on this machine. missing says how to get the others.
func contenders(o Options) (all []contender, missing []string) {
	all = []contender{
		{nameDirect, "the replica itself", nil},
		{namePenstock, o.Version, func(ctx context.Context, dir, replica string) (*process, error) {
			return startIngress(ctx, o.Ingress, dir, replica)
		}},
	}
	if path, err := exec.LookPath("nginx"); err == nil {
		all = append(all, contender{nameNginx, said(path, "-v"), func(ctx context.Context, dir, replica string) (*process, error) {
			return startNginx(ctx, path, dir, replica)
		}})
	} else {
		missing = append(missing, "nginx is not on the PATH: apt-get install nginx-core")
	}
	all = append(all, contender{nameGo, "net/http/httputil, " + o.GoVersion, func(ctx context.Context, _, replica string) (*process, error) {
		return startPart(ctx, o.Exe, PartGo, replica)
	}})
	if path, err := exec.LookPath("caddy"); err == nil {
		all = append(all, contender{nameCaddy, said(path, "version"), func(ctx context.Context, dir, replica string) (*process, error) {
			return startCaddy(ctx, path, dir, replica)
		}})
	} else {
		missing = append(missing, "caddy is not on the PATH: go install github.com/caddyserver/caddy/v2/cmd/caddy@latest")
	}
	return all, missing
}

var versionPattern = regexp.MustCompile(`\d+\.\d+\.\d+`)

// said returns the version that a program reports.
func said(path string, arg string) string {
	out, err := exec.Command(path, arg).CombinedOutput()
	if err != nil {
		return "unknown version"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if v := versionPattern.FindString(first); v != "" {
		return v
	}
	if info, err := buildinfo.ReadFile(path); err == nil { // a program built by `go install` does not know its own version
		return cmp.Or(info.Main.Version, first)
	}
	return first
}

// startIngress runs the role as in production, but without control, with a table that exists when it starts.
func startIngress(ctx context.Context, prepare IngressFunc, dir, replica string) (*process, error) {
	settings, err := resource.ParseSettings(nil, nil)
	if err != nil {
		return nil, err
	}
	app := resource.AppID("00000000-0000-0000-0000-000000000000", "default", "bench")
	revision := app.Child("revisions", "bench--1").String()
	in := ingress.New(ingress.Config{})
	in.Apply(link.Table{
		Epoch: "bench", Version: 1,
		Routes:    []link.Route{{Host: host, App: app.String(), External: true, AllowInsecure: true, Targets: []link.Target{{Revision: revision, Weight: 100}}}},
		Revisions: []link.Revision{{ID: revision, Settings: settings, Replicas: []link.Replica{{Name: "bench--1-replica", Addr: replica}}}},
	})
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer ln.Close() // the role has a copy
	cmd, words, release, err := prepare(ctx, dir, ln)
	if err != nil {
		return nil, err
	}
	defer release()
	defer words.Close()
	if err := in.SaveTable(filepath.Join(dir, "routes.json")); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	release()
	p := &process{cmd: cmd, addr: ln.Addr().String()}
	if _, err := bufio.NewReader(words).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the ingress did not start: %w", err), p.stop())
	}
	return p, nil
}

// IngressFunc prepares a process of the ingress role that serves plain http on ln and keeps everything in dir, where
// routes.json is. A line can be read from words when it serves. release closes what was passed to the process.
type IngressFunc func(ctx context.Context, dir string, ln *net.TCPListener) (cmd *exec.Cmd, words io.ReadCloser, release func(), err error)

// nginxConfig logs the fields of our access records that differ between requests here, as buffered plain text. It keeps
// connections to the replica open.
const nginxConfig = `
daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
worker_processes auto;
worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
  log_format requests '$msec	$request_method	$request_uri	$host	$server_protocol	$http_user_agent	$remote_addr	'
    '$proxy_add_x_forwarded_for	$request_length	$body_bytes_sent	$status	$request_time	$request_id	$connection	'
    '$upstream_addr	$upstream_header_time	$upstream_response_time';
  access_log %[1]s/access.log requests buffer=64k flush=1s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  keepalive_requests 100000000; keepalive_timeout 1h; tcp_nodelay on; client_max_body_size 0;
  upstream replica { server %[2]s; keepalive 2048; keepalive_requests 100000000; }
  server {
    listen %[3]s backlog=4096;
    location / {
      proxy_pass http://replica; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
      proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-Id $request_id;
    }
  }
}
`

func startNginx(ctx context.Context, path, dir, replica string) (*process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	// The workers run as another user and open files in this folder.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, dir, replica, addr), 0o644); err != nil {
		return nil, err
	}
	return startServer(exec.CommandContext(ctx, path, "-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log")), addr)
}

const caddyConfig = `{
	admin off
	auto_https off
	persist_config off
}
http://%[3]s {
	log {
		output file %[1]s/access.log
	}
	bind %[4]s
	reverse_proxy %[2]s {
		flush_interval -1
		transport http {
			keepalive_idle_conns_per_host 2048
			compression off
		}
	}
}
http://:%[5]s {
	bind %[4]s
}
`

func startCaddy(ctx context.Context, path, dir, replica string) (*process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, caddyConfig, dir, replica, host+":"+port, ip, port), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return startServer(cmd, addr)
}

// freeAddress returns an address that nobody listens on. A proxy that cannot inherit a listener binds it shortly
// afterwards.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// startLimit is how long a server may take until it accepts connections.
const startLimit = 10 * time.Second

// startServer runs a third-party server and waits until it accepts connections.
func startServer(cmd *exec.Cmd, addr string) (*process, error) {
	var words strings.Builder
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, addr: addr}
	for deadline := time.Now().Add(startLimit); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return p, conn.Close()
		}
		if time.Now().After(deadline) {
			err = errors.Join(fmt.Errorf("%s does not listen: %w", cmd.Path, err), p.stop())
			return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(words.String()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
