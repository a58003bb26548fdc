package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Options configure Build.
type Options struct {
	Dir      string // the folder with the image.yaml, Dockerfile or requirements.txt
	Name     string // NAME or NAME:TAG
	Registry Registry
	Cache    string // cache folder; empty means DefaultCache
	// Epoch is the time of all files and of the image; zero means 1970-01-01. Programs for reproducible builds take it
	// from SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch).
	Epoch time.Time
	// Refresh checks whether a base has changed at its source, instead of using the cached one.
	Refresh bool
	// Pull, if not nil, makes the server pull an image of another registry that is the base and that it does not have.
	Pull func(ctx context.Context, image string) error
	// Progress, if not nil, is called often, and concurrently.
	Progress func(Progress)
}

// Progress is the progress of a layer.
type Progress struct {
	Layer string
	Stage Stage
	Done  int64 // bytes
	Total int64
	// Detail, if not empty, is what a tool does now.
	Detail string
}

// Stage is the current step of a layer.
type Stage string

const (
	StageTool  Stage = "tool"  // another step, described by Layer; sizes are unknown
	StageBuild Stage = "build" // reading, hashing and packing files
	StagePush  Stage = "push"  // sending the layer to the server
)

// Result describes a build.
type Result struct {
	Name   string        `json:"name"` // with the tag
	Digest string        `json:"digest"`
	Size   int64         `json:"size"` // of layers, config and manifest
	Layers []LayerResult `json:"layers"`
	Hashed int64         `json:"hashedBytes"`
	Moved  int64         `json:"movedBytes"`
	Took   time.Duration `json:"tookNanoseconds"`
}

// LayerResult describes a layer in a build.
type LayerResult struct {
	Name      string        `json:"name"`
	Digest    string        `json:"digest"`
	Size      int64         `json:"size"`
	Cached    bool          `json:"cached"` // its files were not read
	Pushed    bool          `json:"pushed"` // false if the server already had it
	BuildTook time.Duration `json:"buildTookNanoseconds"`
	PushTook  time.Duration `json:"pushTookNanoseconds"`
}

// Build builds the image that opts.Dir describes and pushes it.
func Build(ctx context.Context, opts Options) (result Result, err error) {
	begin := time.Now()
	if opts.Cache == "" {
		dir, err := DefaultCache()
		if err != nil {
			return Result{}, err
		}
		opts.Cache = dir
	}
	if opts.Epoch.IsZero() {
		opts.Epoch = time.Unix(0, 0)
	}
	tag, to, err := opts.Registry.tag(opts.Name)
	if err != nil {
		return Result{}, err
	}
	dir, err := os.OpenRoot(opts.Dir)
	if err != nil {
		return Result{}, fmt.Errorf("want a folder with an %s, a %s or a %s: %w", SpecFile, dockerfileName, requirementsName, err)
	}
	defer dir.Close()
	spec, text, wrote, err := readInstructions(ctx, dir)
	for _, name := range wrote {
		opts.report(Progress{Layer: "wrote " + filepath.Join(opts.Dir, name), Stage: StageTool})
	}
	if err != nil {
		return Result{}, err
	}
	if err := opts.Registry.answers(ctx, to); err != nil {
		return Result{}, fmt.Errorf("push %s: %w", opts.Name, err)
	}
	store, err := openCache(opts.Cache)
	if err != nil {
		return Result{}, err
	}
	if text != nil {
		result, err = buildDockerfile(ctx, opts, tag, to, store, text)
	} else {
		result, err = buildSpec(ctx, opts, tag, to, store, dir, spec)
	}
	if err != nil {
		return Result{}, err
	}
	store.clean(begin)
	result.Name, result.Took = tag.RepositoryStr()+":"+tag.TagStr(), time.Since(begin)
	return result, nil
}

// buildSpec builds and pushes the image of an image.yaml. It tries again after failures that a second try can solve.
func buildSpec(ctx context.Context, opts Options, tag name.Tag, to *url.URL, store *cache, dir *os.Root, spec Spec) (result Result, err error) {
	var moved atomic.Int64
	for attempt := 1; ; attempt++ {
		img, hashed, err := buildLayers(ctx, store, dir, spec, opts)
		opts.Refresh = false // the second try does not need it
		if err != nil {
			return Result{}, err
		}
		result.Hashed += hashed
		layers, err := push(ctx, img, opts.Registry, tag, to.Scheme, &moved, func(l *layer, done int64) {
			opts.report(Progress{Layer: l.name, Stage: StagePush, Done: done, Total: l.built.Size})
		})
		result.summarize(img, layers)
		again := false
		switch {
		case refusedFor(err, transport.ManifestBlobUnknownErrorCode):
			// The server had one of the layers, but its image was deleted meanwhile.
			again = attempt == 1
		case refusedFor(err, transport.DigestInvalidErrorCode):
			// The cache is damaged, or a file was changed while it was read.
			again = attempt == 1
			for _, l := range img.layers {
				err = errors.Join(err, l.forget())
			}
		}
		err = errors.Join(err, img.close())
		switch {
		case err == nil:
			result.Moved = moved.Load()
			return result, nil
		case !again:
			return Result{}, fmt.Errorf("push %s to %s: %w", opts.Name, to.Host, err)
		}
	}
}

// readInstructions reads the folder's image.yaml or, if there is none, its Dockerfile, which it may have to write first.
func readInstructions(ctx context.Context, dir *os.Root) (spec Spec, dockerfile []byte, wrote []string, err error) {
	raw, err := readFile(dir, SpecFile, maxSpec)
	if err != nil {
		return Spec{}, nil, nil, err
	}
	if raw != nil {
		spec, err = ParseSpec(raw)
		return spec, nil, nil, err
	}
	dockerfile, err = readFile(dir, dockerfileName, maxDockerfile)
	if dockerfile == nil && err == nil {
		var files []NewFile
		if files, err = dockerfileFor(ctx, dir); len(files) > 0 {
			dockerfile = files[len(files)-1].Content
			wrote, err = writeNew(dir, files)
		}
	}
	if dockerfile == nil && err == nil {
		err = fmt.Errorf("%s: want a folder with an %s, a %s or a %s, found none of them", dir.Name(), SpecFile, dockerfileName, requirementsName)
	}
	return Spec{}, dockerfile, wrote, err
}

// buildLayers builds the image. Its error reports all layers that failed. The caller closes the image.
func buildLayers(ctx context.Context, store *cache, dir *os.Root, spec Spec, opts Options) (*image, int64, error) {
	img := &image{}
	var hashed int64
	var failed []error
	for i, layerSpec := range spec.Layers {
		if err := compile(ctx, layerSpec, opts); err != nil {
			return nil, 0, fmt.Errorf("layers[%d].go (%s): %w", i, layerSpec.Name, err)
		}
	}
	for i, layerSpec := range spec.Layers { // before a base is made, which can take minutes
		if _, err := dir.Stat(filepath.FromSlash(layerSpec.From)); errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("layers[%d] (%s): %w", i, layerSpec.Name, errMissing(dir, layerSpec)))
		}
	}
	if len(failed) > 0 {
		return nil, 0, errors.Join(failed...)
	}
	below, err := openBase(ctx, store, dir, spec.Base, opts)
	if err != nil {
		return nil, 0, err
	}
	img.base, img.layers, hashed = below, below.layers, below.hashed
	for i, layerSpec := range spec.Layers {
		l, n, err := store.layer(ctx, dir, layerSpec, opts.Epoch, func(done, total int64) {
			opts.report(Progress{Layer: layerSpec.Name, Stage: StageBuild, Done: done, Total: total})
		})
		if err != nil {
			failed = append(failed, fmt.Errorf("layers[%d] (%s): %w", i, layerSpec.Name, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		hashed += n
		img.layers = append(img.layers, l)
	}
	if len(failed) > 0 {
		return nil, 0, errors.Join(append(failed, img.close())...)
	}
	err = img.check()
	if err == nil {
		err = img.assemble(spec, opts.Epoch)
	}
	if err != nil {
		return nil, 0, errors.Join(err, img.close())
	}
	return img, hashed, nil
}

func (o Options) report(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

func (r *Result) summarize(img *image, layers []*pushed) {
	r.Digest = img.digest.String()
	r.Size = int64(len(img.config) + len(img.manifest))
	r.Layers = make([]LayerResult, len(layers))
	for i, l := range layers {
		r.Size += l.built.Size
		r.Layers[i] = LayerResult{
			Name: l.name, Digest: l.built.Digest.String(), Size: l.built.Size,
			Cached: l.cached, Pushed: l.opened.Load(), BuildTook: l.layer.took, PushTook: l.took,
		}
	}
}
