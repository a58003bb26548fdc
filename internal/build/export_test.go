package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"time"
)

// PackTree makes a layer of a tar, as of a tool's or a user's, and that of the same tar above it.
func PackTree(ctx context.Context, tree []byte) (layer, above []byte, err error) {
	var first, second bytes.Buffer
	r := &rootfs{epoch: time.Unix(0, 0), made: time.Unix(1<<31, 0)}
	below, err := r.pack(ctx, bytes.NewReader(tree), &first)
	if err != nil {
		return nil, nil, err
	}
	again := &rootfs{epoch: r.epoch, made: r.made, below: below}
	if _, err := again.pack(ctx, bytes.NewReader(tree), &second); err != nil {
		return nil, nil, err
	}
	return first.Bytes(), second.Bytes(), nil
}

// PackageProxy opens a proxy for packages with its cache in dir.
func PackageProxy(dir string) (url string, end func() error, err error) {
	store, err := openCache(dir)
	if err != nil {
		return "", nil, err
	}
	p, err := openPackages(store, func(int64, bool, bool) {})
	if err != nil {
		return "", nil, err
	}
	return p.url(), func() error { return p.close(false) }, nil
}

// ToolDetails returns what is reported for a tool's messages.
func ToolDetails(said []byte) (details []string) {
	p := &debianProgress{tell: func(detail string) { details = append(details, detail) }}
	b := limitedBuffer{line: p.line}
	_, _ = b.Write(said) // it never fails
	return details
}

type memory map[string][]byte

func (m memory) open(name string) (io.ReadCloser, error) {
	raw, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

func (m memory) close() error { return nil }

// LayoutImage reads an image out of the files of a layout; blobs are stored under their digests.
func LayoutImage(index, manifest, config []byte) (layers int, err error) {
	b, err := layoutImage(memory{"index.json": index, blobName(sum(manifest)): manifest, blobName(sum(config)): config})
	if err != nil {
		return 0, err
	}
	return len(b.layers), nil
}

// DockerfileFor is the Dockerfile of a folder with a requirements.txt, a program and a file of weights of that name.
func DockerfileFor(ctx context.Context, requirements, source, weights string) (string, error) {
	p := &python{version: pythonDefault, needs: readRequirements([]byte(requirements)), weights: []string{weights}}
	if !p.serve("main.py", []byte(source)) {
		return "", errors.New("it does not serve")
	}
	return string(p.dockerfile()), ctx.Err()
}
