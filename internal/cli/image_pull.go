package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const pullsPath = "/penstock/v1/pulls"

// pullEnd is the last line of a pull's answer; the ones before it are a pullView each.
type pullEnd struct {
	Image *struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	} `json:"image"`
	Moved  pullView  `json:"moved"`
	TookMS int64     `json:"tookMs"`
	Error  *APIError `json:"error"`
}

func newImagePullCmd(env *Env) *cobra.Command {
	var username string
	var passwordStdin bool
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Bring an image from its registry to the server",
		Long: `Bring an image from the registry that its name begins with, as in docker.io/library/nginx:1.27. Layers that are on the
server are not asked for again, and a pull that was cut off goes on where it ended.

Apps pull by themselves what their manifest names, with the registries of their configuration; this is for having it
there before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := map[string]string{"image": args[0]}
			if (username != "") != passwordStdin {
				return UsageError(errors.New("want --username and --password-stdin, or neither"))
			}
			if passwordStdin {
				line, err := bufio.NewReader(io.LimitReader(env.Stdin, 64<<10)).ReadString('\n')
				if err != nil && err != io.EOF {
					return fmt.Errorf("password: %w", err)
				}
				asked["username"], asked["password"] = username, strings.TrimRight(line, "\r\n")
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			body, err := json.Marshal(asked)
			if err != nil {
				return err
			}
			resp, err := c.do(cmd.Context(), http.MethodPost, pullsPath, nil, body)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			end, raw, err := env.followPull(resp.Body)
			if err != nil {
				return err
			}
			return env.show(raw, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s, %s, %s of it moved in %s\n", end.Image.Name, shortDigest(end.Image.Digest),
					bytesText(end.Image.Size), bytesText(end.Moved.Wire), time.Duration(end.TookMS)*time.Millisecond)
			})
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "who asks the registry")
	cmd.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// followPull shows a pull until its end.
func (e *Env) followPull(body io.Reader) (end pullEnd, raw json.RawMessage, err error) {
	b := newBar(e.Stderr)
	defer b.show("")
	in := bufio.NewScanner(body)
	for in.Scan() {
		raw = append(json.RawMessage(nil), in.Bytes()...)
		var far pullView
		end = pullEnd{}
		if err := errors.Join(json.Unmarshal(raw, &far), json.Unmarshal(raw, &end)); err != nil {
			return end, raw, fmt.Errorf("read answer: %w", err)
		}
		if end.Image == nil && end.Error == nil {
			b.show(far.text(time.Now()))
		}
	}
	switch {
	case end.Error != nil:
		if end.Error.Code == "ImageNotFound" {
			end.Error.Status = http.StatusNotFound
		}
		return end, raw, end.Error
	case in.Err() != nil:
		return end, raw, fmt.Errorf("read answer: %w", in.Err())
	case end.Image == nil:
		return end, raw, hint(errors.New("the server ended before the pull did"), "penstock image pull again: it goes on where it ended")
	}
	return end, raw, nil
}
