package penstocktest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Hello returns the manifest of an app made from examples/hello with that many replicas.
func Hello(name string, replicas int) string {
	return fmt.Sprintf(`
name: %s
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: %d, maxReplicas: %d}
`, name, replicas, replicas)
}

// Neighbour returns the manifest of an app made from examples/hello that answers with its name. environment may be
// empty.
func Neighbour(name, environment string, external bool) string {
	in := ""
	if environment != "" {
		in = "environmentId: " + EnvironmentPath(environment)
	}
	return fmt.Sprintf(`
name: %s
properties:
  %s
  configuration:
    ingress: {external: %v, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        env: [{name: NAME, value: %s}]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 1, maxReplicas: 1}
`, name, in, external, name)
}

// LayerFile is a file of an image's layer; Layer sets its size.
type LayerFile struct {
	tar.Header
	Body []byte
}

// Layer makes an image's layer of files.
func Layer(t *testing.T, files ...LayerFile) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size = int64(len(f.Body))
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", f.Name, err))
		}
		if _, err := w.Write(f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}
