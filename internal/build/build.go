package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Options say what is built and where it goes.
type Options struct {
	Dir      string // the folder with the image.yaml
	Name     string // NAME or NAME:TAG
	Registry Registry
	Cache    string // folder; empty is DefaultCache
	// Epoch is the time of all files and of the image; zero is 1970-01-01. Programs that build reproducibly take it
	// from SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch).
	Epoch time.Time
	// Refresh asks whether a base has changed at its source, instead of taking the one that is kept.
	Refresh bool
	// Progress, if not nil, is called often and from several goroutines at once.
	Progress func(Progress)
}

// Progress tells how far a layer is.
type Progress struct {
	Layer string
	Stage Stage
	Done  int64 // bytes
	Total int64
}

// Stage is what is being done with a layer.
type Stage string

const (
	StageBase  Stage = "base"  // a tool makes it, which takes its time; Layer says what, sizes are not known
	StageBuild Stage = "build" // its files are read, hashed and packed
	StagePush  Stage = "push"  // it moves to the server
)

// Result tells what a build did.
type Result struct {
	Name   string        `json:"name"` // with the tag
	Digest string        `json:"digest"`
	Size   int64         `json:"size"` // of layers, config and manifest
	Layers []LayerResult `json:"layers"`
	Hashed int64         `json:"hashedBytes"`
	Moved  int64         `json:"movedBytes"`
	Took   time.Duration `json:"tookNanoseconds"`
}

// LayerResult tells what a build did with a layer.
type LayerResult struct {
	Name      string        `json:"name"`
	Digest    string        `json:"digest"`
	Size      int64         `json:"size"`
	Cached    bool          `json:"cached"` // its files were not read
	Pushed    bool          `json:"pushed"` // false: the server had it
	BuildTook time.Duration `json:"buildTookNanoseconds"`
	PushTook  time.Duration `json:"pushTookNanoseconds"`
}

// Build makes the image that opts.Dir describes and pushes it.
func Build(ctx context.Context, opts Options) (Result, error) {
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
	dir, spec, err := readSpec(opts.Dir)
	if err != nil {
		return Result{}, err
	}
	defer dir.Close()
	if err := opts.Registry.answers(ctx, to); err != nil {
		return Result{}, fmt.Errorf("push %s: %w", opts.Name, err)
	}
	store, err := openCache(opts.Cache)
	if err != nil {
		return Result{}, err
	}
	result := Result{Name: tag.RepositoryStr() + ":" + tag.TagStr()}
	var moved atomic.Int64
	for attempt := 1; ; attempt++ {
		img, hashed, err := buildLayers(ctx, store, dir, spec, opts)
		opts.Refresh = false // once is enough
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
			// Another image that had one of the layers was deleted after the server said that it has it.
			again = attempt == 1
		case refusedFor(err, transport.DigestInvalidErrorCode):
			// The cache is damaged, or a file that is written while it is read was changed.
			again = attempt == 1
			for _, l := range img.layers {
				err = errors.Join(err, l.forget())
			}
		}
		err = errors.Join(err, img.close())
		switch {
		case err == nil:
			result.Moved = moved.Load()
			result.Took = time.Since(begin)
			store.clean(begin)
			return result, nil
		case !again:
			return Result{}, fmt.Errorf("push %s to %s: %w", result.Name, to.Host, err)
		}
	}
}

// readSpec opens the folder, out of which nothing of the build can reach, and reads its image.yaml.
func readSpec(path string) (dir *os.Root, spec Spec, err error) {
	dir, err = os.OpenRoot(path)
	if err != nil {
		return nil, Spec{}, fmt.Errorf("want a folder with an %s: %w", SpecFile, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
			dir = nil
		}
	}()
	f, err := dir.Open(SpecFile)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, Spec{}, fmt.Errorf("%s: want a folder with an %s, got one without", path, SpecFile)
	}
	if err != nil {
		return dir, Spec{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return dir, Spec{}, fmt.Errorf("read %s: %w", SpecFile, err)
	}
	spec, err = ParseSpec(raw)
	return dir, spec, err
}

// buildLayers makes the image; all layers that cannot be made are reported at once. The caller closes it.
func buildLayers(ctx context.Context, store *cache, dir *os.Root, spec Spec, opts Options) (*image, int64, error) {
	img := &image{}
	var hashed int64
	var failed []error
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
