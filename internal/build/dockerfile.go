package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	// dockerfileName is the name of the file that container builders read.
	dockerfileName = "Dockerfile"
	// maxDockerfile is far larger than real Dockerfiles.
	maxDockerfile = 1 << 20
	// answersWithin is how long a build daemon may take to respond.
	answersWithin = 5 * time.Second
	// serverDomain represents this server, whose address may change, in a builder's store and in an image's history.
	serverDomain = "penstock.local"
	authFile     = "auth.json" // containers-auth.json(5)
)

// errNoBuilder is the error if no builder is installed. It says how to install one.
var errNoBuilder = errors.New("building a Dockerfile needs buildah, or buildctl with a running buildkitd, on PATH; found neither: apt-get install buildah")

// dockerBuild is a build of a Dockerfile with a builder on this machine.
type dockerBuild struct {
	opts  Options
	tag   name.Tag
	to    *url.URL
	bases []serverBase
	dir   string // temporary folder of this build
	line  func(string)
}

// serverBase is a base image of the Dockerfile that the server has.
type serverBase struct {
	written string // as the Dockerfile has it
	tag     name.Tag
}

// buildDockerfile builds an image with an available builder and pushes it.
func buildDockerfile(ctx context.Context, opts Options, tag name.Tag, to *url.URL, store *cache, text []byte) (result Result, err error) {
	b := &dockerBuild{opts: opts, tag: tag, to: to}
	if b.bases, err = serverBases(ctx, opts.Registry, text); err != nil {
		return Result{}, err
	}
	buildctl, buildah := builders(ctx)
	if b.dir, err = os.MkdirTemp("", "penstock-build-"); err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	switch {
	case buildah != "" && (buildctl == "" || len(b.bases) > 0): // BuildKit's daemon cannot reach the server
		b.reports("building the Dockerfile with buildah")
		return b.buildah(ctx, buildah, store)
	case buildctl != "":
		b.reports("building the Dockerfile with BuildKit")
		return b.buildkit(ctx, buildctl, store)
	}
	return Result{}, errNoBuilder
}

// builders returns the paths of installed builders. BuildKit counts only if its daemon responds.
func builders(ctx context.Context) (buildctl, buildah string) {
	if path, err := exec.LookPath("buildctl"); err == nil {
		ctx, cancel := context.WithTimeout(ctx, answersWithin)
		defer cancel()
		if exec.CommandContext(ctx, path, "debug", "workers").Run() == nil {
			buildctl = path
		}
	}
	if path, err := exec.LookPath("buildah"); err == nil {
		buildah = path
	}
	return buildctl, buildah
}

// buildkit makes the daemon export the image as a layout, and sends the layers that the server lacks.
func (b *dockerBuild) buildkit(ctx context.Context, path string, store *cache) (result Result, err error) {
	const layout = "image.tar"
	if err := b.run(ctx, path, nil, "build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local=context="+b.opts.Dir, "--local=dockerfile="+b.opts.Dir, "--opt=platform="+platform().String(),
		"--output=type=oci,oci-mediatypes=true,compression=uncompressed,dest="+filepath.Join(b.dir, layout)); err != nil {
		return Result{}, err
	}
	dir, err := os.OpenRoot(b.dir)
	if err != nil {
		return Result{}, err
	}
	defer dir.Close()
	return buildSpec(ctx, b.opts, b.tag, b.to, store, dir, Spec{Base: BaseSpec{Layout: layout}})
}

// buildah makes buildah push through a gate, so that it neither packs nor reads the layers that the server has.
func (b *dockerBuild) buildah(ctx context.Context, path string, store *cache) (result Result, err error) {
	secret, err := store.secret()
	if err != nil {
		return Result{}, err
	}
	g, err := openGate(b.opts.Registry, b.to, b.tag.RepositoryStr(), secret)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	env, err := b.files(g)
	if err != nil {
		return Result{}, err
	}
	built := filepath.Join(b.dir, "image")
	args := []string{"build", "--layers", "--force-rm", "--format=oci", "--network=host", "--iidfile=" + built}
	// The name that the server is given here wins over the short-name aliases of the machine (containers-registries.conf(5)),
	// which would lead python:3.12-slim to Docker Hub.
	for _, base := range b.bases {
		args = append(args, "--build-context="+base.written+"=docker-image://"+serverDomain+"/"+base.tag.RepositoryStr()+":"+base.tag.TagStr())
	}
	args = append(args, runFlags()...)
	if err := b.run(ctx, path, env, append(args, b.opts.Dir)...); err != nil {
		return Result{}, err
	}
	id, err := os.ReadFile(built)
	if err != nil {
		return Result{}, err
	}
	if err := b.run(ctx, path, nil, "push", "--quiet", "--tls-verify=false", "--authfile="+filepath.Join(b.dir, authFile), "--format=oci",
		strings.TrimSpace(string(id)), "docker://"+g.host+"/"+b.tag.RepositoryStr()+":"+b.tag.TagStr()); err != nil {
		return Result{}, err
	}
	return b.result(ctx, g)
}

// files writes the builder's configuration for the gate, and returns variables to add to its environment.
func (b *dockerBuild) files(g *gate) (env []string, err error) {
	auth, err := json.Marshal(map[string]any{"auths": map[string]any{g.host: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("build:" + g.password))}}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, authFile), auth, 0o600); err != nil || len(b.bases) == 0 {
		return nil, err
	}
	file := filepath.Join(b.dir, "registries.conf")
	return []string{"CONTAINERS_REGISTRIES_CONF=" + file}, os.WriteFile(file, b.registries(g), 0o600)
}

// registries returns a containers-registries.conf(5) that maps the server's images to the gate.
func (b *dockerBuild) registries(g *gate) []byte {
	return fmt.Appendf(nil, "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"permissive\"\n[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n",
		serverDomain, g.host+"/"+g.secret)
}

// reports reports a step, and from then on the last line that the builder printed.
func (b *dockerBuild) reports(what string) {
	b.opts.report(Progress{Layer: what, Stage: StageTool})
	b.line = func(line string) {
		if line = strings.TrimSpace(line); line != "" {
			b.opts.report(Progress{Layer: what, Stage: StageTool, Detail: line})
		}
	}
}

func (b *dockerBuild) run(ctx context.Context, path string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(cmd.Environ(), env...)
	said := limitedBuffer{line: b.line}
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w; it said last:\n%s", filepath.Base(path), err, lastLines(said.String()))
	}
	return nil
}

// result describes the image that the server now has.
func (b *dockerBuild) result(ctx context.Context, g *gate) (Result, error) {
	img, err := remote.Image(b.tag, remote.WithContext(ctx), remote.WithPlatform(platform()),
		remote.WithTransport(&wire{next: b.opts.Registry.transport(), scheme: b.to.Scheme}))
	if err != nil {
		return Result{}, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return Result{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return Result{}, err
	}
	size, err := img.Size() // of the manifest
	if err != nil {
		return Result{}, err
	}
	r := Result{Digest: digest.String(), Size: size + manifest.Config.Size, Moved: g.moved.Load()}
	for i, d := range manifest.Layers {
		sent := g.sent(d.Digest.String())
		r.Size += d.Size
		if sent {
			r.Hashed += d.Size
		}
		r.Layers = append(r.Layers, LayerResult{Name: fmt.Sprintf("layer-%d", i+1), Digest: d.Digest.String(), Size: d.Size, Cached: !sent, Pushed: sent})
	}
	return r, nil
}

var fromLine = regexp.MustCompile(`(?mi)^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?`)

// serverBases finds the base images of a Dockerfile that the server has. Names with a host belong to other registries.
func serverBases(ctx context.Context, from Registry, text []byte) ([]serverBase, error) {
	stages := make(map[string]bool)
	var found []serverBase
	for _, line := range fromLine.FindAllSubmatch(text, -1) {
		image := string(line[1])
		known := stages[strings.ToLower(image)]
		stages[strings.ToLower(string(line[2]))] = true
		if known || strings.ContainsAny(image, "$@") || image == "scratch" || OfAnotherRegistry(image) {
			continue
		}
		tag, u, err := from.tag(image)
		if err != nil {
			continue // the builder reports what is wrong with it
		}
		_, err = remote.Head(tag, remote.WithContext(ctx), remote.WithTransport(&wire{next: from.transport(), scheme: u.Scheme}))
		switch {
		case err == nil && !slices.Contains(found, serverBase{image, tag}):
			found = append(found, serverBase{image, tag})
		case err != nil && statusOf(err) == 0:
			return nil, fmt.Errorf("FROM %s: %w", image, err)
		}
	}
	return found, nil
}

// openFile opens a regular file in the folder. A named pipe in its place would be waited for until somebody writes to it.
func openFile(dir *os.Root, name string) (*os.File, error) {
	f, err := dir.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: want a file, got %s", name, kind(info.Mode()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readFile reads a file in the folder. It returns nil if the file does not exist.
func readFile(dir *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openFile(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s: want at most %d bytes, got more", name, limit)
	}
	return raw, nil
}
