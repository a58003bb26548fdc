package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/weights"
)

// Program is what Look found in a folder: what can be served, and how.
type Program struct {
	Kind   string          // what was recognised, for people: a Go program
	Ports  []int           // ports that it listens on; none if they are unknown
	Health string          // path of its health check, found in its source; "" if there is none
	Models []weights.Model // models in the folder, largest first
	Write  []NewFile       // files that a build needs and that do not exist yet
}

// NewFile is a file to write into the folder.
type NewFile struct {
	Name    string
	Content []byte
}

// Needs returns the memory that the models need.
func (p Program) Needs() (bytes int64) {
	for _, m := range p.Models {
		bytes += m.Needs()
	}
	return bytes
}

// Look finds out what a folder contains that can be served. It writes nothing.
func Look(ctx context.Context, folder string) (Program, error) {
	dir, err := os.OpenRoot(folder)
	if err != nil {
		return Program{}, err
	}
	defer dir.Close()
	l := &looker{dir: dir, folder: folder}
	if err := l.walk(ctx); err != nil {
		return Program{}, err
	}
	return l.program(ctx)
}

// looker collects what a folder contains.
type looker struct {
	dir     *os.Root
	folder  string
	weights []string          // files with weights
	files   []weights.File    // the headers of those that are recognised
	sources map[string]string // text of programs, by name
	found   []string          // names of the first files, for an error
}

// skippedForLook are folders that contain neither the program nor its models, beside skippedFolders.
var skippedForLook = []string{"bin", "dist", "test", "tests", "testdata", "vendor"}

// sourceNames are the suffixes of programs that are searched for health checks and ports.
var sourceNames = []string{".go", ".py", ".js", ".mjs", ".ts"}

// maxSources limits how many programs are read.
const maxSources = 500

func (l *looker) walk(ctx context.Context) error {
	l.sources = map[string]string{}
	looked := 0
	return fs.WalkDir(l.dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if looked++; looked > maxLooked {
			return fmt.Errorf("%s has more than %d files; write an %s or a %s that names what belongs into the image", l.folder, maxLooked, SpecFile, dockerfileName)
		}
		suffix := strings.ToLower(path.Ext(name))
		switch {
		case d.IsDir() && name != "." && (slices.Contains(skippedFolders, d.Name()) || slices.Contains(skippedForLook, d.Name()) || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "."):
		case slices.Contains(weightNames, suffix):
			l.weights = append(l.weights, name)
			l.header(name)
		case slices.Contains(sourceNames, suffix) && len(l.sources) < maxSources && !isTest(d.Name()):
			if text, err := readFile(l.dir, filepath.FromSlash(name), maxSource); err == nil { // a larger one is data
				l.sources[name] = string(text)
			}
		}
		if d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".") && len(l.found) < 5 {
			l.found = append(l.found, name)
		}
		return nil
	})
}

func isTest(name string) bool {
	return strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "test_") || strings.HasSuffix(name, "_test.py") || name == "conftest.py"
}

// header reads the header of a file with weights. One that cannot be read or is of an unknown format has no header.
func (l *looker) header(name string) {
	f, err := openFile(l.dir, name)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return
	}
	if h, ok := weights.Read(name, f, info.Size()); ok {
		l.files = append(l.files, h)
	}
}

func (l *looker) program(ctx context.Context) (Program, error) {
	p := Program{Models: weights.Models(l.files), Health: l.health()}
	spec, err := readFile(l.dir, SpecFile, maxSpec)
	if err != nil {
		return p, err
	}
	if spec != nil {
		parsed, err := ParseSpec(spec)
		if err != nil {
			return p, err
		}
		p.Kind, p.Ports = "an "+SpecFile, parsed.Ports
		return p, nil
	}
	dockerfile, err := readFile(l.dir, dockerfileName, maxDockerfile)
	if err != nil {
		return p, err
	}
	if dockerfile != nil {
		p.Kind, p.Ports = "a "+dockerfileName, exposed(dockerfile)
		return p, nil
	}
	for _, recognise := range []func(context.Context, *Program) error{l.requirements, l.golang, l.python, l.gguf} {
		if err := recognise(ctx, &p); err != nil || p.Kind != "" {
			return p, err
		}
	}
	return p, l.unknown(p)
}

// unknown is the error for a folder in which nothing was recognised.
func (l *looker) unknown(p Program) error {
	const want = "want an image.yaml, a Dockerfile, a Go module with a main package, a Python program with app = FastAPI(), Starlette(), Flask() or Quart(), or a .gguf file"
	if len(p.Models) > 0 {
		return fmt.Errorf("%s has the model %s (%s, %s) and no program that serves it: %s", l.folder, p.Models[0].Path, p.Models[0].Format, p.Models[0], want)
	}
	if len(l.found) == 0 {
		return fmt.Errorf("%s is empty: %s", l.folder, want)
	}
	return fmt.Errorf("nothing in %s is recognised as a program or a model (found %s): %s", l.folder, strings.Join(l.found, ", "), want)
}

var exposeLine = regexp.MustCompile(`(?mi)^[ \t]*EXPOSE[ \t]+(.+)$`)

// exposed returns the TCP ports that a Dockerfile exposes.
func exposed(dockerfile []byte) (ports []int) {
	for _, line := range exposeLine.FindAllSubmatch(dockerfile, -1) {
		for word := range strings.FieldsSeq(string(line[1])) {
			number, kind, _ := strings.Cut(word, "/")
			if port, err := strconv.Atoi(number); err == nil && port > 0 && port < 1<<16 && (kind == "" || kind == "tcp") && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

var healthPath = regexp.MustCompile("[\"'`](?:GET )?(/(?:readyz?|healthz?|health/ready))[\"'`]")

// health finds the path of a health check in the sources. One that says ready is preferred, because it may wait for a model.
func (l *looker) health() string {
	order := []string{"/ready", "/readyz", "/health/ready", "/healthz", "/health"}
	best := len(order)
	for _, text := range l.sources {
		for _, found := range healthPath.FindAllStringSubmatch(text, -1) {
			best = min(best, slices.Index(order, found[1]))
		}
	}
	if best == len(order) {
		return ""
	}
	return order[best]
}

// requirements recognises a Python program with a requirements.txt.
func (l *looker) requirements(ctx context.Context, p *Program) error {
	files, err := dockerfileFor(ctx, l.dir)
	if err != nil || len(files) == 0 {
		return err
	}
	p.Kind, p.Write = "a Python program with a "+requirementsName, files
	p.Ports = exposed(files[len(files)-1].Content)
	return nil
}

var (
	moduleLine  = regexp.MustCompile(`(?m)^module[ \t]+"?([^\s"]+)`)
	mainPackage = regexp.MustCompile(`(?m)^package main\b`)
	mainFunc    = regexp.MustCompile(`(?m)^func main\(\)`)
	goPort      = regexp.MustCompile(`"(?:0\.0\.0\.0|\[::\])?:([1-9][0-9]{1,4})"`)
	envPort     = regexp.MustCompile(`(?:Getenv|LookupEnv)\("PORT"\)`)
	notInName   = regexp.MustCompile(`[^a-z0-9._-]+`)
)

// golang recognises a Go module with a main package.
func (l *looker) golang(_ context.Context, p *Program) error {
	mod, err := readFile(l.dir, "go.mod", maxSource)
	if err != nil || mod == nil {
		return err
	}
	module := moduleLine.FindSubmatch(mod)
	if module == nil {
		return fmt.Errorf("%s: go.mod has no line that begins with module", l.folder)
	}
	mains := map[string]bool{}
	for name, text := range l.sources {
		if path.Ext(name) == ".go" && mainPackage.MatchString(text) && mainFunc.MatchString(text) && !strings.Contains(text, "//go:build ignore") {
			mains[path.Dir(name)] = true
		}
	}
	name := path.Base(string(module[1]))
	pkg := ""
	for _, likely := range []string{".", "cmd/" + name, "cmd/server", "server"} {
		if mains[likely] {
			pkg = likely
			break
		}
	}
	switch all := slices.Sorted(maps.Keys(mains)); {
	case pkg != "":
	case len(all) == 1:
		pkg = all[0]
	case len(all) == 0:
		return nil // a library: another kind may fit
	default:
		return fmt.Errorf("%s has %d programs (%s); write an %s with the one to serve: go: %s", l.folder, len(all), strings.Join(all, ", "), SpecFile, all[0])
	}
	binary := strings.Trim(notInName.ReplaceAllString(strings.ToLower(name), "-"), ".-_")
	binary = cmp.Or(binary, "server")
	s := &specText{}
	s.line("# Written by Penstock for a Go program. It is yours now: change it as you like.")
	s.line("layers: # bottom first; an unchanged layer is neither packed nor sent again")
	for _, from := range l.parts() {
		s.layer("weights", from, "/app/"+from, "none")
	}
	s.line("  # A file that the program reads while it runs needs a layer too, unless it is embedded with //go:embed.")
	s.layer("server", "bin/"+binary, "/app/bin/"+binary, "zstd")
	s.line("    go: %s # compiled into from at each build, with CGO_ENABLED=0", quote(pkg))
	s.line("entrypoint: [%s]", quote("/app/bin/"+binary))
	if port, ok := l.port(); ok {
		p.Ports = []int{port}
		s.line("ports: [%d]", port)
		if l.mentions(envPort) {
			s.line("env: {PORT: \"%d\"}", port)
		}
	}
	s.line("workdir: /app")
	s.line("user: \"65532\"")
	p.Kind, p.Write = "a Go program", []NewFile{{SpecFile, s.Bytes()}}
	return nil
}

// port returns the port that the program's source names, if it is only one.
func (l *looker) port() (port int, ok bool) {
	ports := map[int]bool{}
	for name, text := range l.sources {
		if path.Ext(name) != ".go" {
			continue
		}
		for _, found := range goPort.FindAllStringSubmatch(text, -1) {
			if port, _ = strconv.Atoi(found[1]); port < 1<<16 {
				ports[port] = true
			}
		}
	}
	for port = range ports {
		return port, len(ports) == 1
	}
	if l.mentions(envPort) {
		return 8080, true // what the image.yaml will set
	}
	return 0, false
}

func (l *looker) mentions(pattern *regexp.Regexp) bool {
	for _, text := range l.sources {
		if pattern.MatchString(text) {
			return true
		}
	}
	return false
}

// parts returns the files and folders with weights. A folder is taken whole, since vocabularies and labels are beside the
// weights, unless it contains programs.
func (l *looker) parts() (parts []string) {
	for _, name := range l.weights {
		part := name
		if folder, _, below := strings.Cut(name, "/"); below {
			part = folder
			for source := range l.sources {
				if strings.HasPrefix(source, folder+"/") {
					part = name
				}
			}
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return parts
}

var importLine = regexp.MustCompile(`(?m)^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([A-Za-z_]\w*(?:[\w., \t]*))$)`)

// debianModules are the Debian packages of modules that programs for models import.
var debianModules = map[string]string{
	"aiohttp": "python3-aiohttp", "cv2": "python3-opencv", "fastapi": "python3-fastapi", "flask": "python3-flask", "httpx": "python3-httpx",
	"jinja2": "python3-jinja2", "joblib": "python3-joblib", "msgpack": "python3-msgpack", "multipart": "python3-multipart", "numpy": "python3-numpy",
	"onnx": "python3-onnx", "pandas": "python3-pandas", "PIL": "python3-pil", "prometheus_client": "python3-prometheus-client",
	"pydantic": "python3-pydantic", "quart": "python3-quart", "requests": "python3-requests", "scipy": "python3-scipy", "sklearn": "python3-sklearn",
	"starlette": "python3-starlette", "torch": "python3-torch", "torchvision": "python3-torchvision", "tqdm": "python3-tqdm", "yaml": "python3-yaml",
}

// pipModules are modules that programs for models import and that Debian does not have.
var pipModules = []string{
	"datasets", "diffusers", "huggingface_hub", "keras", "langchain", "lightgbm", "llama_cpp", "onnxruntime", "openai", "safetensors",
	"sentence_transformers", "tensorflow", "tokenizers", "transformers", "ultralytics", "vllm", "xgboost",
}

// python recognises a Python program without a requirements.txt. Its modules come from Debian, which needs no registry.
func (l *looker) python(ctx context.Context, p *Program) error {
	py := &python{needs: map[string]string{"uvicorn": "", "gunicorn": ""}}
	programs, err := py.look(ctx, l.dir)
	if err != nil {
		return err
	}
	program := ""
	for _, name := range programs {
		if text, ok := l.sources[name]; ok && py.serve(name, []byte(text)) {
			program = name
			break
		}
	}
	if program == "" {
		return nil
	}
	packages := map[string]bool{"python3": true}
	switch py.command[0] {
	case "uvicorn":
		packages["python3-uvicorn"] = true
	default:
		packages["gunicorn"] = true
	}
	var missing []string
	for name, text := range l.sources {
		if path.Ext(name) != ".py" {
			continue
		}
		for _, module := range imports(text) {
			if slices.Contains(pipModules, module) && !slices.Contains(missing, module) {
				missing = append(missing, module)
			}
			if found, ok := debianModules[module]; ok {
				packages[found] = true
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%s imports %s, which Debian does not have: list what it needs in a %s, as pip reads it", path.Join(l.folder, program), strings.Join(missing, ", "), requirementsName)
	}
	if packages["python3-torch"] || packages["python3-numpy"] {
		packages["libopenblas0-pthread"] = true // several times faster than the reference BLAS
	}
	parts := l.parts()
	s := &specText{}
	s.line("# Written by Penstock for a Python program without a %s: its modules are Debian's.", requirementsName)
	s.line("# It is yours now: change it as you like. With a %s, a Dockerfile is written instead, and pip installs them.", requirementsName)
	s.line("base:\n  debian:\n    suite: bookworm")
	s.line("    packages: [%s]", strings.Join(slices.Sorted(maps.Keys(packages)), ", "))
	s.line("layers: # bottom first; an unchanged layer is neither packed nor sent again")
	for _, from := range parts {
		s.layer("weights", from, "/app/"+from, "none")
	}
	s.line("  # The rest of the folder, without what %s lists.", IgnoreFile)
	s.layer("code", ".", "/app", "zstd")
	command := py.command
	if command[0] == "uvicorn" {
		command = append([]string{"python3", "-m"}, command...)
	}
	quoted := make([]string, len(command))
	for i, word := range command {
		quoted[i] = quote(word)
	}
	s.line("entrypoint: [%s]", strings.Join(quoted, ", "))
	s.line("env: {PYTHONUNBUFFERED: \"1\", PYTHONDONTWRITEBYTECODE: \"1\"}")
	s.line("workdir: /app")
	s.line("user: \"65532\"")
	s.line("ports: [%s]", pythonPort)
	port, err := strconv.Atoi(pythonPort)
	if err != nil {
		return err
	}
	p.Kind, p.Ports = "a Python program", []int{port}
	if _, err := l.dir.Stat(IgnoreFile); errors.Is(err, fs.ErrNotExist) {
		p.Write = append(p.Write, NewFile{IgnoreFile, ignoreText(append(parts, SpecFile, "app.yaml"))})
	}
	p.Write = append(p.Write, NewFile{SpecFile, s.Bytes()})
	return nil
}

// imports returns the first parts of the names of the modules that a program imports.
func imports(source string) (modules []string) {
	for _, found := range importLine.FindAllStringSubmatch(source, -1) {
		if found[1] != "" {
			modules = append(modules, found[1])
			continue
		}
		for one := range strings.SplitSeq(found[2], ",") {
			first, _, _ := strings.Cut(strings.TrimSpace(one), ".")
			first, _, _ = strings.Cut(first, " ")
			modules = append(modules, first)
		}
	}
	return modules
}

// llamaServer is llama.cpp's own image of its server (github.com/ggml-org/llama.cpp, docs/docker.md).
const llamaServer = "ghcr.io/ggml-org/llama.cpp:server"

// gguf recognises a model for llama.cpp, whose server it uses.
func (l *looker) gguf(_ context.Context, p *Program) error {
	var names []string
	for _, f := range l.files {
		if f.Format == weights.GGUF && !strings.HasPrefix(path.Base(f.Path), "mmproj") {
			names = append(names, f.Path)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	first, others := names[0], names[1:]
	if !strings.Contains(first, "-00001-of-") {
		if len(others) > 0 {
			return fmt.Errorf("%s has %d models (%s): put the one to serve in a folder of its own", l.folder, len(names), strings.Join(names, ", "))
		}
	} else if len(weights.Models(l.files)) > 1 {
		return fmt.Errorf("%s has several models: put the one to serve in a folder of its own", l.folder)
	}
	s := &specText{}
	s.line("# Written by Penstock for a GGUF model. It is yours now: change it as you like.")
	s.line("base:\n  image: %s # llama.cpp's server with an OpenAI-compatible API, for CPUs; pulled at the first build", llamaServer)
	s.line("layers:")
	for _, name := range names {
		s.layer("weights", name, "/models/"+path.Base(name), "none")
	}
	// The names of the variables are those of llama.cpp's tools/server/README.md.
	s.line("env: {LLAMA_ARG_MODEL: %s, LLAMA_ARG_HOST: 0.0.0.0, LLAMA_ARG_PORT: \"8080\"}", quote("/models/"+path.Base(first)))
	s.line("ports: [8080]")
	p.Kind, p.Ports, p.Health, p.Write = "a GGUF model", []int{8080}, "/health", []NewFile{{SpecFile, s.Bytes()}}
	return nil
}

// specText is an image.yaml that is being written.
type specText struct {
	bytes.Buffer
	layers map[string]int
}

func (s *specText) line(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *specText) layer(name, from, to, compression string) {
	if s.layers == nil {
		s.layers = map[string]int{}
	}
	if s.layers[name]++; s.layers[name] > 1 {
		name += "-" + strconv.Itoa(s.layers[name])
	}
	s.line("  - name: %s\n    from: %s\n    to: %s\n    compression: %s", name, quote(from), quote(to), compression)
}

var plainWord = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9._/-]*$`)

// quote writes a string for YAML. Plain words stay as they are, except those that YAML takes for something else.
func quote(s string) string {
	if plainWord.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return strconv.Quote(s)
}

// WriteNew writes files into a folder and overwrites none.
func WriteNew(folder string, files []NewFile) (wrote []string, err error) {
	dir, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return writeNew(dir, files)
}

func writeNew(dir *os.Root, files []NewFile) (wrote []string, err error) {
	for _, file := range files {
		f, err := dir.OpenFile(file.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return wrote, err
		}
		_, err = f.Write(file.Content)
		if err := errors.Join(err, f.Close()); err != nil {
			return wrote, err
		}
		wrote = append(wrote, file.Name)
	}
	return wrote, nil
}
