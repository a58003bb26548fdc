package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
	"penstock/internal/arm/app"
	"penstock/internal/build"
)

// check refuses combinations of a folder, a manifest and an image that say different things.
func (o *upOptions) check(cmd *cobra.Command) error {
	switch {
	case o.image != "" && (o.folder != "" || o.file != ""):
		return UsageError(errors.New("--image: want an image, a folder or a manifest, got more than one of them"))
	case o.port != 0 && o.image == "":
		return UsageError(errors.New("--port: it is for --image; a manifest has properties.configuration.ingress.targetPort"))
	case o.name != "" && o.image == "" && (o.folder == "") == (o.file == ""):
		return UsageError(errors.New("--name: it is for --image, for a folder without a manifest, or for a manifest without a name"))
	case cmd.Flags().Changed("port") && (o.port < 1 || o.port > 1<<16-1):
		return UsageError(fmt.Errorf("--port: want 1 to 65535, got %d", o.port))
	}
	return nil
}

// buildFolder builds the image of a folder, under the name that the manifest in body has for it.
func (o *upOptions) buildFolder(cmd *cobra.Command, env *Env, c *Client, body []byte) error {
	image, err := imageToBuild(body)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", o.file, err)
	}
	_, err = (&buildOptions{name: image}).build(cmd, env, c, o.folder)
	return err
}

// imageToBuild returns the first image in a manifest that is not of another registry.
func imageToBuild(body []byte) (string, error) {
	var doc struct {
		Properties struct {
			Template struct {
				Containers []struct {
					Image string `json:"image"`
				} `json:"containers"`
			} `json:"template"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", err
	}
	for _, c := range doc.Properties.Template.Containers {
		if c.Image != "" && !build.OfAnotherRegistry(c.Image) && !strings.Contains(c.Image, "@") {
			return c.Image, nil
		}
	}
	return "", hint(errors.New("properties.template.containers: want an image of this server to build from the folder, as in image: chat:1; all are of other registries, or none is named"),
		"penstock up -f, to deploy the manifest without building")
}

// fromImage returns the write that serves an image: a new app, or a changed image of the app that has the name.
func (o *upOptions) fromImage(ctx context.Context, c *Client, name string) (w write, err error) {
	w = write{name: name, method: http.MethodPut}
	doc, err := c.get(ctx, o.path("containerApps", name), version())
	if e, ok := errors.AsType[*APIError](err); ok && e.Status == http.StatusNotFound {
		w.body, err = o.newBody(ctx, c, name)
		return w, err
	}
	if err != nil {
		return w, err
	}
	// Everything else of the app stays.
	a, err := decode[changeView](doc)
	if err != nil {
		return w, err
	}
	containers := a.containers()
	if len(containers) == 0 {
		return w, fmt.Errorf("app %s has no container", name)
	}
	containers[0]["image"] = o.image
	properties := map[string]any{"template": map[string]any{"containers": containers, "revisionSuffix": nil}}
	if o.port != 0 {
		properties["configuration"] = map[string]any{"ingress": map[string]any{"targetPort": o.port}}
	}
	w.method = http.MethodPatch
	w.body, err = json.Marshal(map[string]any{"properties": properties})
	return w, err
}

// newBody returns the body of a new app. If the server has the image, its models say how much memory the app gets.
func (o *upOptions) newBody(ctx context.Context, c *Client, name string) ([]byte, error) {
	a := newApp{name: name, image: o.image, source: "an image", port: o.port}
	raw, err := c.get(ctx, imagePath(o.image), nil)
	if e, ok := errors.AsType[*APIError](err); err != nil && !(ok && e.Status == http.StatusNotFound) {
		return nil, err
	}
	if err == nil {
		details, err := decode[wire.ImageDetails](raw)
		if err != nil {
			return nil, err
		}
		for _, m := range details.Models {
			a.needs += m.Needs
		}
	}
	_, body, err := app.ParseYAML(a.yaml())
	if err != nil {
		return nil, err
	}
	return withDefaults(body, o.path("managedEnvironments", o.environment), false)
}

// imageBase returns the last part of an image's name, without tag and digest.
func imageBase(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image, _, _ = strings.Cut(path.Base(image), ":")
	return image
}

// tryCurl returns a command that calls the app, or "" if it cannot be called with curl.
func (o *upOptions) tryCurl(url string) string {
	if !strings.HasPrefix(url, "http") {
		return ""
	}
	insecure := ""
	if strings.HasPrefix(url, "https") {
		insecure = "-k "
	}
	return "curl " + insecure + url + cmp.Or(o.health, "/")
}
