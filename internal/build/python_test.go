package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/build"
)

const torchDockerfile = `# Written by penstock build from requirements.txt. It is yours now: change it as you like.
FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# PyTorch for CPUs: the default one has 2 GB of CUDA with it.
RUN ["pip","install","--no-cache-dir","--index-url=https://download.pytorch.org/whl/cpu","torch==2.3.1"]

# Dependencies: a layer that changes with requirements.txt only.
COPY requirements.txt ./
RUN sed -i 's/+cu[0-9]*//' requirements.txt && pip install --no-cache-dir -r requirements.txt

# Weights: layers of their own, for they are large and change seldom.
COPY ["models/a b.safetensors","./models/a b.safetensors"]

# The code, by its names: a new folder, or the first file of a new kind beside weights, is added here.
COPY [".python-version","*.py","*.sh","./"]
COPY ["models/LICENSE","models/*.json","./models/"]
COPY ["models/tokenizer/","./models/tokenizer/"]
COPY ["src/","./src/"]
COPY ["tests/","./tests/"]

# Threads of the mathematical libraries. Penstock sets the vCPUs of the manifest; elsewhere, more than these spin and wait.
ENV OMP_NUM_THREADS=1

# What is loaded from the Hub while it runs. In the image it would start faster.
ENV HF_HOME=/tmp/huggingface

USER 65532:65532
EXPOSE 8000
CMD ["uvicorn","src.main:api","--host=0.0.0.0","--port=8000"]
`

func TestDockerfileForRequirements(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  []string // lines of the Dockerfile, or all of it
	}{
		"FastAPI with PyTorch and weights": {map[string]string{
			"requirements.txt": "# what it needs\ntorch==2.3.1+cu121 ; sys_platform == 'linux'\nfastapi[standard]>=0.110\nuvicorn\nTransformers\n--extra-index-url https://x\n",
			".python-version":  "3.11.9\n", "src/main.py": "from fastapi import FastAPI\napi: FastAPI = FastAPI(title='x')\n", "tests/app.py": "app = Flask(__name__)\n",
			"models/a b.safetensors": "x", "venv/lib/x.pt": "x", "models/config.json": "x", "models/labels.json": "x", "models/LICENSE": "x",
			"models/tokenizer/vocab": "x", "src/lib/util.py": "x", "start.sh": "x", "[x].py": "x", "notes.ipynb": "x", ".env": "x",
		}, []string{torchDockerfile}},
		"Flask without its server": {map[string]string{"requirements.txt": "flask\n", "application.py": "import flask\napp = flask.Flask(__name__)\n"}, []string{
			"FROM python:3.12-slim\n", "-r requirements.txt gunicorn\n", "COPY . ./\n",
			`CMD ["gunicorn","--bind=0.0.0.0:8000","--workers=1","--threads=4","--timeout=600","application:app"]` + "\n",
		}},
		"Django": {map[string]string{"requirements.txt": "django\ngunicorn\n", "site/wsgi.py": "application = get_wsgi_application()\n", "manage.py": "x"}, []string{
			"-r requirements.txt\n", `"site.wsgi:application"]` + "\n",
		}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			t.Setenv("PATH", t.TempDir()) // it is written, builder or not
			p := newProject(t, tt.files)
			_, err := build.Build(t.Context(), p.options(newServer(t)))
			if err == nil || !strings.Contains(err.Error(), "apt-get install buildah") {
				t.Fatalf("got %v", err)
			}
			got := p.read(t, "Dockerfile")
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
				}
			}
			if ignore := p.read(t, ".dockerignore"); !strings.Contains(ignore, "\nvenv\n") || !strings.Contains(ignore, "\n.env\n") {
				t.Errorf(".dockerignore: %s", ignore)
			}
		})
	}
	t.Run("overwrites nothing", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		p := newProject(t, map[string]string{"requirements.txt": "flask\n", "app.py": "app = Flask(__name__)\n", ".dockerignore": "mine\n"})
		for range 2 {
			if _, err := build.Build(t.Context(), p.options(newServer(t))); err == nil {
				t.Fatal("built without a builder")
			}
			if got := p.read(t, ".dockerignore"); got != "mine\n" {
				t.Errorf(".dockerignore: %s", got)
			}
			if got := p.read(t, "Dockerfile"); strings.Contains(got, "changed") {
				return
			}
			p.write(t, map[string]string{"Dockerfile": "# changed\nFROM scratch\n"})
		}
		t.Error("the Dockerfile is not that of its user")
	})
	t.Run("without a program it says what is wanted", func(t *testing.T) {
		p := newProject(t, map[string]string{"requirements.txt": "flask\n", "train.py": "print(1)\n"})
		if _, err := build.Build(t.Context(), p.options(newServer(t))); err == nil || !strings.Contains(err.Error(), "no program that serves: want a .py file with app = FastAPI()") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(p.dir, "Dockerfile")); err == nil {
			t.Error("a Dockerfile was written")
		}
	})
}

func (p *project) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever the files of a folder say and are called, the Dockerfile has our instructions only.
func FuzzDockerfileForRequirements(f *testing.F) {
	f.Add("torch==2\ntorchvision>=1,<3", "app = FastAPI()", "w.pt")
	f.Add("torch==2 && rm -rf /\n", "app = Flask(\nx", "a\nRUN b.pt")
	f.Fuzz(func(t *testing.T, requirements, source, weights string) {
		text, err := build.DockerfileFor(t.Context(), requirements, source, weights)
		if err != nil {
			return
		}
		for line := range strings.Lines(text) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch word {
			case "", "#", "FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "EXPOSE", "CMD":
			default:
				t.Fatalf("the line %q in:\n%s", line, text)
			}
			if word == "RUN" && !strings.HasPrefix(line, `RUN ["`) && !strings.HasPrefix(line, "RUN sed -i 's/+cu[0-9]*//' requirements.txt && pip install --no-cache-dir -r requirements.txt") {
				t.Fatalf("a shell reads %q", line)
			}
		}
	})
}
