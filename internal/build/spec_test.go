package build_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/build"
)

func TestParseSpec(t *testing.T) {
	got, err := build.ParseSpec([]byte(`
layers:
  - name: weights
    from: models/v1
    to: /models
    compression: none
  - {name: app, from: ./bin/server, to: /app/, owner: 1000, compression: zstd}
  - {name: data, from: data, to: /, owner: "0:7"}
entrypoint: [/app/server, "-v"]
cmd: ["8080"]
env:
  PORT: 8080
  DEBUG: true
  RATIO: 1e3
  EMPTY: ""
user: 65532:nogroup
workdir: /app
ports: [8080, 9090]
labels: {org.opencontainers.image.version: 1.10}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := build.Spec{
		Layers: []build.LayerSpec{
			{Name: "weights", From: "models/v1", To: "/models", Compression: build.None},
			{Name: "app", From: "./bin/server", To: "/app/", Compression: build.Zstd, UID: 1000, GID: 1000},
			{Name: "data", From: "data", To: "/", Compression: build.Gzip, GID: 7},
		},
		Entrypoint: []string{"/app/server", "-v"},
		Cmd:        []string{"8080"},
		Env:        map[string]string{"PORT": "8080", "DEBUG": "true", "RATIO": "1e3", "EMPTY": ""},
		User:       "65532:nogroup",
		WorkDir:    "/app",
		Ports:      []int{8080, 9090},
		Labels:     map[string]string{"org.opencontainers.image.version": "1.10"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err = build.ParseSpec([]byte("layers: [{name: a, from: b, to: /c}]"))
	if err != nil {
		t.Fatal(err)
	}
	want = build.Spec{Layers: []build.LayerSpec{{Name: "a", From: "b", To: "/c", Compression: build.Gzip}}, User: "65532", WorkDir: "/"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestParseSpecNamesAllFaults(t *testing.T) {
	const layer = "layers: [{name: a, from: b, to: /c}]\n"
	tests := map[string]struct{ spec, want string }{
		"all at once": {
			"layers:\n  - nam: x\n    from: ../secrets\n    to: app\n    compression: lz4\nports: [0, 80, http]\nuser: [1]\n",
			`image.yaml:2: layers[0].nam: unknown field; want compression, from, go, name, owner, to
image.yaml:3: layers[0].from: want a path inside the folder of image.yaml, relative to it, got "../secrets"
image.yaml:4: layers[0].to: want an absolute path without . and .. in it, got "app"
image.yaml:5: layers[0].compression: want none, gzip or zstd, got "lz4"
image.yaml:2: layers[0].name: it is missing
image.yaml:6: ports[0]: want a number from 1 to 65535, got the number 0
image.yaml:6: ports[2]: want a number from 1 to 65535, got "http"
image.yaml:7: user: want a string, got a list`,
		},
		"empty":            {"", `image.yaml: it is empty; want at least layers or base`},
		"comment only":     {"# nothing\n", `image.yaml: it is empty; want at least layers or base`},
		"a list":           {"- a\n", `image.yaml:1: want a mapping, got a list`},
		"no layers":        {"user: root\n", `image.yaml: layers: it is missing; want a list with at least one layer, or a base`},
		"base of nothing":  {"base: {}\n", `image.yaml:1: base: want one of debian, image, layout and rootfs, got 0 of them`},
		"base in one word": {"base: debian\n", `image.yaml:1: base: want a mapping, got "debian"`},
		"Debian of no release": {
			"base:\n  debian:\n    suite: Debian 12\n    packages: [nginx, nginx, \"a;b\", --simulate]\n    mirror: \"http://x [trusted=yes] y\"\n",
			`image.yaml:3: base.debian.suite: want the name of a Debian release, such as bookworm, got "Debian 12"
image.yaml:4: base.debian.packages[1]: want each package once, got "nginx" again
image.yaml:4: base.debian.packages[2]: want the name of a Debian package, or NAME=VERSION, got "a;b"
image.yaml:4: base.debian.packages[3]: want the name of a Debian package, or NAME=VERSION, got "--simulate"
image.yaml:5: base.debian.mirror: want http://HOST/PATH or https://HOST/PATH without user, spaces and brackets, got "http://x [trusted=yes] y"`,
		},
		"Debian without suite":  {"base: {debian: {packages: [nginx]}}\n", `image.yaml:1: base.debian.suite: it is missing; want the name of a Debian release, such as bookworm`},
		"zero layers":           {"layers: []\n", `image.yaml:1: layers: want 1 to 127 layers, got 0`},
		"two documents":         {layer + "---\n" + layer, `image.yaml: want one YAML document, got more`},
		"alias":                 {"layers: &a [{name: a, from: b, to: /c}]\ncmd: *a\n", "image.yaml:1: want no anchors (&) and aliases (*)\nimage.yaml:2: want no anchors (&) and aliases (*)"},
		"no YAML":               {"layers: [", `image.yaml: line 1: did not find expected node content`},
		"a key twice":           {layer + "user: a\nuser: b\n", `image.yaml:3: user: it occurs twice`},
		"unknown key":           {layer + "volumes: []\n", `image.yaml:2: volumes: unknown field; want base, cmd, entrypoint, env, labels, layers, ports, user, workdir`},
		"entrypoint as a line":  {layer + "entrypoint: /app -v\n", `image.yaml:2: entrypoint: want a list, got "/app -v"`},
		"number as argument":    {layer + "cmd: [8080]\n", `image.yaml:2: cmd[0]: want a string, got the number 8080; put it in quotes`},
		"name twice":            {"layers: [{name: a, from: b, to: /c}, {name: a, from: d, to: /e}]", `image.yaml: layers[1].name: want a name of its own, got "a", which layers[0] has`},
		"absolute from":         {"layers: [{name: a, from: /etc, to: /c}]", `image.yaml:1: layers[0].from: want a path inside the folder of image.yaml, relative to it, got "/etc"`},
		"to that climbs":        {"layers: [{name: a, from: b, to: /c/../../etc}]", `image.yaml:1: layers[0].to: want an absolute path without . and .. in it, got "/c/../../etc"`},
		"to that deletes":       {"layers: [{name: a, from: b, to: /c/.wh.d}]", `image.yaml:1: layers[0].to: want a name that does not start with .wh. (which deletes files in an image), got "/c/.wh.d"`},
		"owner by name":         {"layers: [{name: a, from: b, to: /c, owner: app}]", `image.yaml:1: layers[0].owner: want a user number, or user and group number with : between, got "app"`},
		"owner too large":       {"layers: [{name: a, from: b, to: /c, owner: 4294967295}]", `image.yaml:1: layers[0].owner: want a user number, or user and group number with : between, got "4294967295"`},
		"value missing":         {layer + "env: {A: }\n", `image.yaml:2: env.A: want a string, got nothing`},
		"bad name in env":       {layer + "env: {A B: c}\n", `image.yaml:2: env.A B: want a name of letters, digits and _ . -, got "A B"`},
		"NUL":                   {layer + `workdir: "/a\0b"`, `image.yaml:2: workdir: want no NUL character, got "/a\x00b"`},
		"port in hex":           {layer + "ports: [0x50]\n", `image.yaml:2: ports[0]: want a number from 1 to 65535, got the number 0x50`},
		"upper-case layer name": {"layers: [{name: A, from: b, to: /c}]", `image.yaml:1: layers[0].name: want 1 to 63 lower-case letters, digits and . _ -, got "A"`},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			_, err := build.ParseSpec([]byte(tt.spec))
			if _, ok := errors.AsType[*build.InvalidError](err); !ok {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add("layers: [{name: a, from: b, to: /c, owner: '1:2', compression: zstd}]\nenv: {A: 1}\nports: [1]\nuser: root\n")
	f.Add("base: {debian: {suite: sid, packages: ['a:amd64=1'], mirror: 'https://[::1]/x'}}")
	f.Add("layers:\n- &a {name: x}\n- *a\n")
	f.Add("!!binary x: [? y]\n---\n")
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := build.ParseSpec([]byte(s))
		if err != nil {
			if _, ok := errors.AsType[*build.InvalidError](err); !ok || !strings.HasPrefix(err.Error(), build.SpecFile) {
				t.Errorf("%q: got %v", s, err)
			}
			return
		}
		for _, l := range spec.Layers {
			if strings.HasPrefix(l.From, "/") || strings.HasPrefix(l.From, "..") || !strings.HasPrefix(l.To, "/") || strings.Contains(l.To+"/", "/../") {
				t.Errorf("%q: got layer %+v", s, l)
			}
		}
	})
}
