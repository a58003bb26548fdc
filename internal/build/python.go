package build

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	requirementsName = "requirements.txt"
	// maxSource is the largest requirements.txt or program that is read.
	maxSource = 1 << 20
	// maxLooked limits the files that are searched for weights and programs. A folder with more contains data, which the
	// user must sort out.
	maxLooked = 20_000
	// pythonDefault is the version if there is no .python-version. Large libraries publish wheels for newer versions late.
	pythonDefault = "3.12"
	pythonPort    = "8000"
)

// weightNames are the suffixes of weight files (huggingface.co/docs/hub/models-downloading, and those that torch.save,
// scikit-learn, ONNX and llama.cpp write).
var weightNames = []string{".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".ggml", ".h5", ".keras", ".tflite", ".joblib", ".pkl", ".npz", ".bin"}

// skippedFolders are folders that contain no part of the program.
var skippedFolders = []string{".git", ".venv", "venv", "env", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache", ".ipynb_checkpoints"}

// python is what is known about the program in a folder with a requirements.txt.
type python struct {
	version string
	needs   map[string]string // requirements by name, as they are written
	weights []string          // files, sorted
	code    []string          // all other files, sorted
	command []string
	serves  string // the server that the command needs, if the requirements do not list it
}

// dockerfileFor returns a Dockerfile for a folder with a requirements.txt, after a .dockerignore if the folder has none. For
// other folders it returns nothing.
func dockerfileFor(ctx context.Context, dir *os.Root) (files []NewFile, err error) {
	requirements, err := readFile(dir, requirementsName, maxSource)
	if err != nil || requirements == nil {
		return nil, err
	}
	p, err := lookAtPython(ctx, dir, requirements)
	if err != nil {
		return nil, err
	}
	if _, err := dir.Stat(IgnoreFile); errors.Is(err, fs.ErrNotExist) {
		files = append(files, NewFile{IgnoreFile, ignoreText(nil)})
	}
	return append(files, NewFile{dockerfileName, p.dockerfile()}), nil
}

// ignoreText returns a .dockerignore for a Python program, with more names of files and folders.
func ignoreText(more []string) []byte {
	return []byte("# What no image gets.\n" + strings.Join(append(pythonIgnored(), more...), "\n") + "\n")
}

// pythonIgnored returns the patterns of the .dockerignore that is written if there is none.
func pythonIgnored() []string {
	return append(slices.Clone(skippedFolders), "**/__pycache__", "**/*.pyc", "**/*.ipynb", ".env", ".env.*", IgnoreFile, dockerfileName)
}

var (
	requirement   = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9._, -]*\])?\s*((?:(?:===?|~=|!=|<=?|>=?)\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*)$`)
	pythonVersion = regexp.MustCompile(`^(?:python-)?(3\.[0-9]{1,2})(?:\.[0-9]{1,3})?$`)
	application   = regexp.MustCompile(`(?m)^([A-Za-z_]\w*)\s*(?::\s*[\w.]+\s*)?=\s*(?:\w+\.)?(FastAPI|Starlette|Flask|Quart)\(`)
	wsgi          = regexp.MustCompile(`(?m)^application\s*=\s*get_wsgi_application\(`)
	cudaVersion   = regexp.MustCompile(`\+cu[0-9]+`)
	moduleName    = regexp.MustCompile(`^(?:[A-Za-z_]\w*/)*[A-Za-z_]\w*\.py$`)
)

func lookAtPython(ctx context.Context, dir *os.Root, requirements []byte) (*python, error) {
	p := &python{version: pythonDefault, needs: readRequirements(requirements)}
	for _, name := range []string{".python-version", "runtime.txt"} {
		raw, err := readFile(dir, name, maxSource)
		if err != nil {
			return nil, err
		}
		if v := pythonVersion.FindSubmatch(bytes.TrimSpace(raw)); v != nil {
			p.version = string(v[1])
			break
		}
	}
	programs, err := p.look(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, program := range programs {
		source, err := readFile(dir, filepath.FromSlash(program), maxSource)
		if err != nil {
			continue // too large or unreadable: not the program that serves
		}
		if p.serve(program, source) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s has a %s and no program that serves: want a .py file with app = FastAPI(), Starlette(), Flask() or Quart(), or Django's wsgi.py; "+
		"or write a %s", dir.Name(), requirementsName, dockerfileName)
}

// readRequirements reads the lines that name a package. Other lines matter only to pip (pip.pypa.io, Requirements File
// Format).
func readRequirements(requirements []byte) map[string]string {
	needs := make(map[string]string)
	for line := range strings.Lines(string(requirements)) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		if found := requirement.FindStringSubmatch(strings.TrimSpace(line)); found != nil {
			needs[strings.ReplaceAll(strings.ToLower(found[1]), "_", "-")] = strings.ReplaceAll(found[0], " ", "")
		}
	}
	return needs
}

// look finds weights and programs. Programs that are most likely to be the server come first.
func (p *python) look(ctx context.Context, dir *os.Root) (programs []string, err error) {
	ignore, err := readIgnored(dir)
	if err == nil && ignore == nil {
		ignore, err = newIgnored(pythonIgnored())
	}
	if err != nil {
		return nil, err
	}
	looked := 0
	err = fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if looked++; looked > maxLooked {
			return fmt.Errorf("%s has more than %d files; write a %s that names what belongs into the image", dir.Name(), maxLooked, dockerfileName)
		}
		switch {
		case d.IsDir() && slices.Contains(skippedFolders, d.Name()):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		if out, _, err := ignore.matches(name, false); err != nil || out {
			return err
		}
		if d.Type().IsRegular() && slices.Contains(weightNames, strings.ToLower(path.Ext(name))) {
			p.weights = append(p.weights, name)
			return nil
		}
		p.code = append(p.code, name)
		if d.Type().IsRegular() && moduleName.MatchString(name) {
			programs = append(programs, name)
		}
		return nil
	})
	likely := []string{"main.py", "app.py", "application.py", "server.py", "api.py", "asgi.py", "wsgi.py"}
	rank := func(name string) int {
		at := slices.Index(likely, path.Base(name))
		if at < 0 {
			at = len(likely)
		}
		return strings.Count(name, "/")*(len(likely)+1) + at
	}
	slices.SortFunc(programs, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return programs, err
}

// serve finds the command that serves a program. It uses one worker, because each worker loads the model again.
func (p *python) serve(program string, source []byte) bool {
	module := strings.ReplaceAll(strings.TrimSuffix(program, ".py"), "/", ".")
	gunicorn := []string{"gunicorn", "--bind=0.0.0.0:" + pythonPort, "--workers=1", "--threads=4", "--timeout=600"}
	server := "gunicorn"
	switch found := application.FindSubmatch(source); {
	case found == nil && path.Base(program) == "wsgi.py" && wsgi.Match(source):
		p.command = append(gunicorn, module+":application")
	case found == nil:
		return false
	case string(found[2]) == "Flask":
		p.command = append(gunicorn, module+":"+string(found[1]))
	default:
		server = "uvicorn"
		p.command = []string{"uvicorn", module + ":" + string(found[1]), "--host=0.0.0.0", "--port=" + pythonPort}
	}
	if _, named := p.needs[server]; !named {
		p.serves = server
	}
	return true
}

// dockerfile returns a Dockerfile that is ordered from what changes rarely to what changes often, so that a change of the
// code changes only the code's layer.
func (p *python) dockerfile() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by penstock build from %s. It is yours now: change it as you like.", requirementsName)
	line("FROM python:%s-slim", p.version)
	line("ENV PYTHONUNBUFFERED=1")
	line("WORKDIR /app")
	if torch := p.torch(); len(torch) > 0 {
		line("\n# PyTorch for CPUs: the default one has 2 GB of CUDA with it.")
		line("RUN %s", list(append([]string{"pip", "install", "--no-cache-dir", "--index-url=https://download.pytorch.org/whl/cpu"}, torch...)...))
	}
	for _, smaller := range [][2]string{{"tensorflow", "tensorflow-cpu"}, {"onnxruntime-gpu", "onnxruntime"}} {
		if p.any(smaller[0]) {
			line("\n# %s works without a GPU in place of %s, and is smaller.", smaller[1], smaller[0])
		}
	}
	line("\n# Dependencies: a layer that changes with %s only.", requirementsName)
	line("COPY %s ./", requirementsName)
	line("RUN sed -i 's/+cu[0-9]*//' %s && pip install --no-cache-dir -r %s%s", requirementsName, requirementsName, strings.TrimSuffix(" "+p.serves, " "))
	if len(p.weights) > 0 {
		line("\n# Weights: layers of their own, for they are large and change seldom.")
		for _, w := range p.weights {
			line("COPY %s", list(escapeGlob(w), "./"+w))
		}
		line("\n# The code, by its names: a new folder, or the first file of a new kind beside weights, is added here.")
		for _, words := range p.codeBesideWeights() {
			line("COPY %s", list(words...))
		}
	} else {
		line("\n# The code.")
		line("COPY . ./")
	}
	if p.counts() {
		line("\n# Threads of the mathematical libraries. Penstock sets the vCPUs of the manifest; elsewhere, more than these spin and wait.")
		line("ENV OMP_NUM_THREADS=1")
	}
	if p.downloads() {
		line("\n# What is loaded from the Hub while it runs. In the image it would start faster.")
		line("ENV HF_HOME=/tmp/huggingface")
	}
	line("\nUSER 65532:65532")
	line("EXPOSE %s", pythonPort)
	line("CMD %s", list(p.command...))
	return b.Bytes()
}

// torch returns PyTorch's packages, without a CUDA version.
func (p *python) torch() []string {
	var found []string
	for _, name := range []string{"torch", "torchaudio", "torchvision"} {
		if need, ok := p.needs[name]; ok {
			found = append(found, cudaVersion.ReplaceAllString(need, ""))
		}
	}
	return found
}

func (p *python) any(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { _, ok := p.needs[name]; return ok })
}

func (p *python) counts() bool {
	return p.any("torch", "numpy", "scipy", "scikit-learn", "onnxruntime", "transformers", "sentence-transformers", "xgboost", "lightgbm", "tensorflow")
}

func (p *python) downloads() bool {
	return p.any("transformers", "sentence-transformers", "huggingface-hub", "diffusers", "datasets")
}

// list formats words in exec form, which no shell interprets.
func list(words ...string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(words) // encoding strings never fails
	return strings.TrimSpace(b.String())
}

// codeBesideWeights returns the sources and the destination of each COPY of the code. Folders without weights are copied
// whole. Of those with weights, files are copied by their extension, so that no layer of code contains weights.
func (p *python) codeBesideWeights() (copies [][]string) {
	mixed := map[string]bool{".": true} // folders with weights, at any depth
	for _, w := range p.weights {
		for dir := path.Dir(w); !mixed[dir]; dir = path.Dir(dir) {
			mixed[dir] = true
		}
	}
	patterns := make(map[string][]string) // by folder, whose files they match
	var whole []string
	for _, name := range p.code {
		dir := path.Dir(name)
		if mixed[dir] {
			pattern := escapeGlob(name)
			if ext := path.Ext(name); ext != "" && ext != path.Base(name) {
				pattern = path.Join(escapeGlob(dir), "*"+escapeGlob(ext))
			}
			if name != requirementsName && !slices.Contains(patterns[dir], pattern) {
				patterns[dir] = append(patterns[dir], pattern)
			}
			continue
		}
		for !mixed[path.Dir(dir)] {
			dir = path.Dir(dir)
		}
		if !slices.Contains(whole, dir) {
			whole = append(whole, dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(patterns)) {
		copies = append(copies, append(patterns[dir], "./"+strings.TrimPrefix(dir+"/", "./")))
	}
	for _, dir := range whole {
		copies = append(copies, []string{escapeGlob(dir) + "/", "./" + dir + "/"})
	}
	return copies
}

// escapeGlob makes a name match only itself (golang.org/pkg/path, Match, which COPY uses).
func escapeGlob(name string) string { return globs.Replace(name) }

var globs = strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", "\\", "\\\\")
