package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

// downLimit is how long to wait for the server to end. Container Apps allows containers a grace period of up to 10 minutes.
const downLimit = 12 * time.Minute

// answerLimit is how long to wait until a server that is just starting accepts the request to end.
const answerLimit = 15 * time.Second

func newDownCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop all containers and the server, and keep the stored data",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := env.settings(cmd)
			if err != nil {
				return err
			}
			return down(cmd.Context(), env, s.Data)
		},
	}
}

// instanceOf returns the name of the server of a data folder, or "" if it has none yet.
func instanceOf(data string) string {
	b, err := os.ReadFile(filepath.Join(data, "instance"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func down(ctx context.Context, env *Env, data string) error {
	pid, err := env.running(data)
	if err != nil {
		return err
	}
	if pid == 0 {
		env.removeHosts(ctx, instanceOf(data))
		fmt.Fprintf(env.Stderr, "no server runs on data folder %s\n", data)
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, downLimit, fmt.Errorf("the server (pid %d) did not end within %s", pid, downLimit))
	defer cancel()
	kill := fmt.Sprintf("kill %d ends the server and leaves the containers running", pid)
	c, err := env.awaitServer(ctx, data, nil, answerLimit)
	if err != nil {
		return hint(fmt.Errorf("stop the server (pid %d): %w", pid, err), "%s", kill)
	}
	env.removeHosts(ctx, instanceOf(data))
	resp, err := c.do(ctx, http.MethodPost, wire.ShutdownPath, url.Values{"containers": {"stop"}}, nil)
	if err != nil {
		return hint(fmt.Errorf("stop the server (pid %d): %w", pid, err), "%s", kill)
	}
	resp.Body.Close()
	c.http.CloseIdleConnections() // otherwise the server waits for them
	err = poll(ctx, func() (bool, error) {
		now, err := env.Running(data)
		return now != pid, err
	})
	if err != nil {
		return hint(err, "look at %s", filepath.Join(data, logFile))
	}
	// The address in the connection file is no longer valid.
	_ = os.Remove(filepath.Join(data, ConnectionFile))
	fmt.Fprintf(env.Stderr, "stopped the containers and the server (pid %d) in %s\n", pid, time.Since(began).Round(time.Millisecond))
	return nil
}
