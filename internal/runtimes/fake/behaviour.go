package fake

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"penstock/internal/runtimes/local"
)

// behaviour is what a container's variables configure.
type behaviour struct {
	port, also                         int
	startDelay, readyAfter, exitAfter  time.Duration
	exits                              bool
	exitCode                           int
	crashOn, hangOn, oomOn, childOOMOn string
	deaf                               bool
	createError, startError            string
}

// defaultPort is the port of a container that no variable gives another one.
const defaultPort = 8080

// exitImageCode is the exit code of the image Exit.
const exitImageCode = 3

func readBehaviour(c local.Container) (behaviour, error) {
	env := map[string]string{}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	b := behaviour{
		crashOn: env["FAKE_CRASH_ON"], hangOn: env["FAKE_HANG_ON"], oomOn: env["FAKE_OOM_ON"], childOOMOn: env["FAKE_CHILD_OOM_ON"],
		createError: env["FAKE_CREATE_ERROR"], startError: env["FAKE_START_ERROR"],
		deaf: strings.HasPrefix(c.Image, Deaf) || env["FAKE_IGNORE_SIGTERM"] == "1",
	}
	var err error
	if b.port, err = strconv.Atoi(cmp.Or(env["PORT"], env["CONTAINER_APP_PORT"], strconv.Itoa(defaultPort))); err != nil || b.port < 1 || b.port > 65535 {
		return b, fmt.Errorf("container %q: PORT: want 1 to 65535, got %q", c.Name, cmp.Or(env["PORT"], env["CONTAINER_APP_PORT"]))
	}
	if b.also, err = strconv.Atoi(cmp.Or(env["FAKE_LISTEN_ALSO"], "0")); err != nil || b.also < 0 || b.also > 65535 {
		return b, fmt.Errorf("container %q: FAKE_LISTEN_ALSO: want 1 to 65535, got %q", c.Name, env["FAKE_LISTEN_ALSO"])
	}
	if b.exitCode, err = strconv.Atoi(cmp.Or(env["FAKE_EXIT_CODE"], "1")); err != nil {
		return b, fmt.Errorf("container %q: FAKE_EXIT_CODE: want a number, got %q", c.Name, env["FAKE_EXIT_CODE"])
	}
	for name, to := range map[string]*time.Duration{
		"FAKE_START_DELAY": &b.startDelay, "FAKE_READY_AFTER": &b.readyAfter, "FAKE_EXIT_AFTER": &b.exitAfter,
	} {
		if env[name] == "" {
			continue
		}
		if *to, err = time.ParseDuration(env[name]); err != nil {
			return b, fmt.Errorf("container %q: %s: want a duration such as 2s, got %q", c.Name, name, env[name])
		}
	}
	b.exits = env["FAKE_EXIT_AFTER"] != ""
	if strings.HasPrefix(c.Image, Exit) {
		b.exits, b.exitAfter, b.exitCode = true, 0, exitImageCode
	}
	if strings.HasPrefix(c.Image, Done) || strings.HasPrefix(c.Image, Write) {
		b.exits, b.exitAfter, b.exitCode = true, 0, 0
	}
	return b, nil
}
