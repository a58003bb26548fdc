package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// ingressAlone prepares an ingress process without supervisor and control role, for benchmarks. It serves plain http on ln
// with the routes of dir/routes.json, and keeps all its files in dir.
func ingressAlone(ctx context.Context, exe string, base Config, dir string, ln *net.TCPListener) (*exec.Cmd, io.ReadCloser, func(), error) {
	var files []*os.File
	release := sync.OnceFunc(func() {
		for _, f := range files {
			f.Close()
		}
	})
	fail := func(err error) (*exec.Cmd, io.ReadCloser, func(), error) {
		release()
		return nil, nil, nil, err
	}
	pass := func(f *os.File, err error) error {
		if err == nil {
			files = append(files, f)
		}
		return err
	}
	if err := pass(ln.File()); err != nil {
		return fail(err)
	}
	names := []string{"http"}
	for _, name := range []string{"https", insideHTTP, insideHTTPS, insideNamesTCP} {
		other, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return fail(err)
		}
		if err := errors.Join(pass(other.File()), other.Close()); err != nil {
			return fail(err)
		}
		names = append(names, name)
	}
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(pass(packets.File()), packets.Close()); err != nil {
		return fail(err)
	}
	names = append(names, insideNames)
	words, tell, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	files = append(files, tell)

	base.Data = dir
	base.LogLevel = slog.LevelError // hides the warnings that control cannot be reached
	told, err := json.Marshal(roleConfig{Config: base, Instance: "alone", State: dir})
	if err != nil {
		words.Close()
		return fail(err)
	}
	cmd := exec.CommandContext(ctx, exe, "role", roleIngress, "--inherit="+strings.Join(names, ","))
	cmd.Env = append(os.Environ(), roleVariable+"="+string(told))
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	return cmd, words, release, nil
}
