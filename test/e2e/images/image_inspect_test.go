package images_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

const twoOfChat = `
name: chat
tags: {penstock.prefetch: weights}
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: chat
        image: chat:1
        env: [{name: LOAD_SECONDS, value: "0"}]
        resources: {cpu: 0.25, memory: 0.5Gi}
        probes: [{type: Readiness, httpGet: {path: /health, port: 8080}}]
    scale: {minReplicas: 2, maxReplicas: 2}
`

const oversized = `
name: oversized
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - {name: server, image: "oversized:1", resources: {cpu: 0.25, memory: 0.5Gi}}
`

// The platform knows a model by its header: what it needs, what its replicas share of it, and when it cannot fit.
func TestModelsInImagesAreKnown(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "chat")
	m.Apply(t, twoOfChat)
	penstocktest.Until(t, time.Minute, "both replicas are ready", func() bool {
		return strings.Count(m.Must(t, "replica", "list", "chat", "-o", "json"), `"ready": true`) == 2
	})
	var image struct {
		Models []struct {
			Path, Format, Type       string
			Parameters, Bytes, Needs int64
		}
		Replicas []struct{ RSSBytes, PSSBytes int64 }
	}
	if err := json.Unmarshal([]byte(m.Must(t, "image", "inspect", "chat:1", "-o", "json")), &image); err != nil {
		t.Fatal(err)
	}
	const weights = 64<<20 - 4096
	if len(image.Models) != 1 || image.Models[0].Path != "/models/model.safetensors" || image.Models[0].Type != "f16" ||
		image.Models[0].Bytes != weights || image.Models[0].Parameters != weights/2 || image.Models[0].Needs != weights+weights/5 {
		t.Errorf("the model is known as %+v", image.Models)
	}
	if len(image.Replicas) != 2 {
		t.Fatalf("the image's replicas are %+v, want 2", image.Replicas)
	}
	for _, r := range image.Replicas {
		if r.RSSBytes < weights || r.PSSBytes > r.RSSBytes-weights/3 || r.PSSBytes < weights/2 {
			t.Errorf("RSS %d, PSS %d: want the %d bytes of weights in the first and half of them in the second", r.RSSBytes, r.PSSBytes, weights)
		}
	}
	if events := m.Must(t, "app", "events", "chat"); !strings.Contains(events, "are in memory: 67108864 bytes") {
		t.Errorf("nothing tells that the weights were read ahead:\n%s", events)
	}

	dir := oversizedModel(t, m)
	m.Must(t, "build", "-t", "oversized:1", dir)
	m.Apply(t, oversized)
	want := "Container 'server': 13.0 B parameters in f16: 24.2 GiB of weights in /models/llama.gguf; the container has 0.5 GiB"
	penstocktest.Until(t, time.Minute, "the model is said to be too large", func() bool {
		return strings.Contains(m.Must(t, "app", "events", "oversized"), want)
	})
	if status, _ := m.Ask(t, http.MethodGet, "oversized", "/", ""); status != http.StatusOK {
		t.Errorf("a warning stopped the app: %d", status)
	}
}

// oversizedModel is the folder of an image with the header of a model of 13 B parameters.
func oversizedModel(t *testing.T, m *penstocktest.Machine) string {
	t.Helper()
	var b bytes.Buffer
	for _, v := range []any{
		[]byte("GGUF"), uint32(3), uint64(1), uint64(0), // version, tensors, keys
		uint64(1), []byte("t"), uint32(2), uint64(13_000_000), uint64(1000), uint32(1), uint64(0), // name, shape, f16, offset
		make([]byte, 64),
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	m.Image(t, "hello")
	hello, err := filepath.Abs("../../../examples/hello/bin/hello")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"llama.gguf": b.Bytes(),
		"image.yaml": []byte("layers:\n  - {name: weights, from: llama.gguf, to: /models/llama.gguf, compression: gzip}\n" +
			"  - {name: server, from: hello, to: /hello}\nentrypoint: [/hello]\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(hello)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hello"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
