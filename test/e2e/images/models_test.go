package images_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// The example models in their containers, as the README has them.
func TestModels(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "langdetect")
	m.Must(t, "up", "-f", "../../../examples/langdetect/app.yaml")
	t.Run("the detector names languages", func(t *testing.T) { namesLanguages(t, m) })
	t.Run("it answers from its container and comes back after a kill", func(t *testing.T) { comesBack(t, m) })
	m.Must(t, "app", "delete", "langdetect")
	t.Run("too little memory is told with limit and peak, and enough serves", func(t *testing.T) {
		penstocktest.Nightly(t, "75 languages load for a minute and a half")
		memory(t, m)
	})
	t.Run("the simulated LLM streams", func(t *testing.T) { streams(t, m) })
}

func namesLanguages(t *testing.T, m *penstocktest.Machine) {
	for text, code := range map[string]string{
		"모델을 어디에 올릴까":                     "ko",
		"Where shall the model live?":     "en",
		"Wo soll das Modell wohnen?":      "de",
		"Où faut-il héberger ce modèle ?": "fr",
		"このモデルはどこに置けばよいですか":               "ja",
	} {
		body, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		status, answer := m.Ask(t, http.MethodPost, "langdetect", "/detect", string(body))
		if status != http.StatusOK || !strings.Contains(answer, `"code":"`+code+`"`) {
			t.Errorf("%q: %d %s, want %s", text, status, answer, code)
		}
	}
	if status, answer := m.Ask(t, http.MethodPost, "langdetect", "/detect", `{"txt":"hello"}`); status != http.StatusBadRequest || !strings.Contains(answer, "txt") {
		t.Errorf("a wrong body: %d %s, want 400 and why", status, answer)
	}
}

// comesBack stops control, so that nobody restarts what is killed, kills the container, and lets control go on.
func comesBack(t *testing.T, m *penstocktest.Machine) {
	processes := m.Processes(t)
	if len(processes) != 1 {
		t.Fatalf("%d replicas, want 1", len(processes))
	}
	control := m.Role(t, "control")
	if err := syscall.Kill(control, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = syscall.Kill(control, syscall.SIGCONT) }
	defer goOn()
	for _, pids := range processes {
		for pid := range strings.FieldsSeq(pids) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	penstocktest.Until(t, time.Minute, "nothing answers in its place", func() bool {
		status, answer := m.Ask(t, http.MethodGet, "langdetect", "/languages", "")
		return status == http.StatusServiceUnavailable && strings.Contains(answer, "upstream connect error")
	})
	goOn()
	penstocktest.Until(t, time.Minute, "it is back", func() bool {
		status, _ := m.Ask(t, http.MethodGet, "langdetect", "/languages", "")
		return status == http.StatusOK
	})
	for _, pids := range m.Processes(t) {
		if pids == "" {
			t.Error("it answers without a process")
		}
	}
}

func memory(t *testing.T, m *penstocktest.Machine) {
	small, err := os.ReadFile("../../../examples/langdetect/app-75.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, said, code := m.Run(t, "up", "-f", "../../../examples/langdetect/app-75.yaml")
	told := regexp.MustCompile(`OOMKilled +Container 'langdetect' reached its memory limit of 1 GiB \(peak 1 GiB\): the kernel killed langdetect`)
	if code != 1 || !told.MatchString(said) {
		t.Errorf("75 languages in 1 GiB: exit %d, want 1 and the limit and the peak in:\n%s", code, said)
	}
	m.Must(t, "app", "delete", "langdetect-75")

	large := regexp.MustCompile(`resources: \{.*\}`).ReplaceAll(small, []byte("resources: {cpu: 2, memory: 4Gi}"))
	m.Apply(t, string(large))
	status, answer := m.Ask(t, http.MethodPost, "langdetect-75", "/detect", `{"text":"Где должна жить модель?"}`)
	if status != http.StatusOK || !strings.Contains(answer, `"code":"ru"`) {
		t.Errorf("75 languages in 4 GiB: %d %s", status, answer)
	}
	m.Must(t, "app", "delete", "langdetect-75")
}

func streams(t *testing.T, m *penstocktest.Machine) {
	m.Image(t, "chat")
	m.Must(t, "up", "-f", "../../../examples/chat/app.yaml")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://chat.penstock.localhost/v1/chat/completions",
		strings.NewReader(`{"model":"simulated-llm","stream":true,"max_tokens":8,"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var first, last time.Time
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 && first.IsZero() {
			first = time.Now()
		}
		text.Write(buf[:n])
		last = time.Now()
		if err != nil {
			break
		}
	}
	if resp.StatusCode != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text.String()), "data: [DONE]") {
		t.Fatalf("%s: %s", resp.Status, text.String())
	}
	// Eight tokens take a while; a stream that came in one piece was held back on its way.
	if last.Sub(first) < 50*time.Millisecond {
		t.Errorf("the first and the last event came within %s", last.Sub(first))
	}
}
