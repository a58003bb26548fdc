package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newImagePullCmd(env *Env) *cobra.Command {
	var username string
	var passwordStdin bool
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Pull an image from its registry to the server",
		Long: `Pull an image from the registry that its name starts with, as in docker.io/library/nginx:1.27. Layers that are already on
the server are not fetched again, and an interrupted pull resumes where it stopped.

Apps pull the images of their manifest by themselves, with the registries of their configuration. Use this command to
have an image on the server beforehand.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := wire.PullRequest{Image: args[0]}
			if (username != "") != passwordStdin {
				return UsageError(errors.New("want --username and --password-stdin, or neither"))
			}
			if passwordStdin {
				line, err := bufio.NewReader(io.LimitReader(env.Stdin, 64<<10)).ReadString('\n')
				if err != nil && err != io.EOF {
					return fmt.Errorf("password: %w", err)
				}
				asked.Username, asked.Password = username, strings.TrimRight(line, "\r\n")
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			end, raw, err := env.pull(cmd.Context(), c, newBar(env.Stderr), asked)
			if err != nil {
				return err
			}
			return env.show(raw, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s, %s, %s of it fetched in %s\n", end.Image.Name, shortDigest(end.Image.Digest),
					bytesText(end.Image.Size), bytesText(end.Moved.Wire), time.Duration(end.TookMS)*time.Millisecond)
			})
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "user name for the registry")
	cmd.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// pull makes the server pull an image, and shows the progress on the bar.
func (e *Env) pull(ctx context.Context, c *Client, b *bar, asked wire.PullRequest) (wire.PullEnd, json.RawMessage, error) {
	body, err := json.Marshal(asked)
	if err != nil {
		return wire.PullEnd{}, nil, err
	}
	resp, err := c.do(ctx, http.MethodPost, wire.PullsPath, nil, body)
	if err != nil {
		return wire.PullEnd{}, nil, err
	}
	defer resp.Body.Close()
	return followPull(resp.Body, b)
}

// followPull shows the progress of a pull until it ends.
func followPull(body io.Reader, b *bar) (end wire.PullEnd, raw json.RawMessage, err error) {
	defer b.show("")
	in := bufio.NewScanner(body)
	for in.Scan() {
		raw = append(json.RawMessage(nil), in.Bytes()...)
		var far wire.Pull
		end = wire.PullEnd{}
		if err := errors.Join(json.Unmarshal(raw, &far), json.Unmarshal(raw, &end)); err != nil {
			return end, raw, fmt.Errorf("read answer: %w", err)
		}
		if end.Image == nil && end.Error == nil {
			b.show(pullText(far, time.Now()))
		}
	}
	switch {
	case end.Error != nil:
		failed := &APIError{Code: end.Error.Code, Message: end.Error.Message}
		if failed.Code == "ImageNotFound" {
			failed.Status = http.StatusNotFound
		}
		return end, raw, failed
	case in.Err() != nil:
		return end, raw, fmt.Errorf("read answer: %w", in.Err())
	case end.Image == nil || end.Moved == nil:
		return end, raw, hint(errors.New("the server ended before the pull did"), "run penstock image pull again: it resumes where it stopped")
	}
	return end, raw, nil
}
