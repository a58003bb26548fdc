package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDetectsLanguages(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"five languages, full accuracy":  {"LANGUAGES": "ko, en, de, fr, ja", "ACCURACY": "full"},
		"twelve languages, low accuracy": {"ACCURACY": "low"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, env)
			ready := p.logs.wait(t, "ready")
			want := 12.0
			if env["LANGUAGES"] != "" {
				want = 5
			}
			if n, rss := ready["languages"], ready["rss_bytes"].(float64); n != want || rss < 10<<20 {
				t.Errorf("ready: got %v languages in %v bytes, want %v in more than 10 MiB", n, rss, want)
			}
			for code, text := range map[string]string{
				"ko": "모델을 어디에 올릴까",
				"en": "Where should the model be hosted, and what will it cost?",
				"de": "Wohin soll ich das Modell stellen, und was kostet es?",
				"fr": "Où faut-il héberger le modèle, et combien cela coûte-t-il ?",
				"ja": "モデルをどこに置こうか",
			} {
				resp, got := p.detect(t, text)
				if resp.StatusCode != http.StatusOK || got["code"] != code || got["confidence"].(float64) < 0.5 {
					t.Errorf("%q: got %d %v, want %s with a confidence of 0.5 or more", text, resp.StatusCode, got, code)
				}
			}
		})
	}
}

// TestAnswers looks at answers in full, with all cases on one server.
func TestAnswers(t *testing.T) {
	p := start(t, map[string]string{"LANGUAGES": "ko,en,de,fr", "MAX_TEXT_BYTES": "1000"})
	p.logs.wait(t, "ready")

	t.Run("an answer lists the other candidates", func(t *testing.T) {
		_, got := p.detect(t, "prologue")
		if got["language"] != "French" {
			t.Errorf("got language %v, want French", got["language"])
		}
		other := got["alternatives"].([]any)[0].(map[string]any)
		if other["code"] == "" || other["confidence"].(float64) > got["confidence"].(float64) {
			t.Errorf("got first alternative %v of %v, want a language with less confidence", other, got)
		}
	})
	t.Run("a text without a language says why", func(t *testing.T) {
		for text, reason := range map[string]string{
			"12345 !?":    "the text has no letters",
			"Πού είσαι;":  "no loaded language fits the text",
			"モデルをどこに置こうか": "no loaded language fits the text",
		} {
			resp, got := p.detect(t, text)
			if resp.StatusCode != http.StatusOK || got["language"] != nil || got["code"] != nil || got["confidence"] != 0.0 || got["reason"] != reason {
				t.Errorf("%q: got %d %v, want 200 without a language because %s", text, resp.StatusCode, got, reason)
			}
		}
	})
	t.Run("curl's default content type is taken", func(t *testing.T) {
		req := p.request(t, http.MethodPost, "/detect", `{"text": "모델"}`)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if resp, got := p.do(t, req); got["code"] != "ko" {
			t.Errorf("got %d %v, want ko", resp.StatusCode, got)
		}
	})
	t.Run("languages lists the loaded ones", func(t *testing.T) {
		_, got := p.get(t, "/languages")
		if s := fmt.Sprint(got["languages"]); s != "[map[code:ko language:Korean] map[code:en language:English] map[code:de language:German] map[code:fr language:French]]" {
			t.Errorf("got %s", s)
		}
	})
	t.Run("each request leaves one line without its text", func(t *testing.T) {
		body := `{"text": "a secret that stays out of the logs"}`
		p.do(t, p.request(t, http.MethodPost, "/detect", body))
		for {
			line := p.logs.wait(t, "request")
			if strings.Contains(fmt.Sprint(line), "secret") {
				t.Errorf("got %v, want no text in it", line)
			}
			if line["path"] == "/detect" && line["request_bytes"] == float64(len(body)) {
				if line["status"] != 200.0 || line["millis"].(float64) <= 0 || line["response_bytes"].(float64) < 50 {
					t.Errorf("got %v, want status, time and size of the answer", line)
				}
				return
			}
		}
	})

	wrong := map[string]struct {
		method, path, body, contentType string
		status                          int
		code, says                      string
	}{
		"no body":              {body: "", status: 400, code: "empty_body", says: `want {"text": "..."}`},
		"only spaces":          {body: " \n", status: 400, code: "empty_body"},
		"plain text":           {body: "hello", status: 400, code: "not_json", says: "at byte 1"},
		"a form":               {body: "text=hello", status: 400, code: "not_json"},
		"half a JSON":          {body: `{"text": "hel`, status: 400, code: "not_json"},
		"two objects":          {body: `{"text": "a"}{"text": "b"}`, status: 400, code: "not_json", says: "more after"},
		"a list":               {body: `["hello"]`, status: 400, code: "wrong_type", says: "got a JSON array"},
		"a number for text":    {body: `{"text": 7}`, status: 400, code: "wrong_type", says: "text: want a string, got a JSON number"},
		"another field":        {body: `{"text": "hello", "lang": "en"}`, status: 400, code: "unknown_field", says: `"lang"`},
		"no text":              {body: `{}`, status: 400, code: "missing_text", says: "text is missing"},
		"null":                 {body: `{"text": null}`, status: 400, code: "missing_text"},
		"empty text":           {body: `{"text": ""}`, status: 400, code: "empty_text"},
		"blank text":           {body: `{"text": "  "}`, status: 400, code: "empty_text"},
		"not UTF-8":            {body: "{\"text\": \"\xff\"}", status: 400, code: "not_utf8"},
		"one byte too long":    {body: `{"text": "` + strings.Repeat("a", 1001) + `"}`, status: 413, code: "text_too_long", says: "at most 1000 bytes of UTF-8 (MAX_TEXT_BYTES), got 1001"},
		"far too long":         {body: `{"text": "` + strings.Repeat("a", 100_000) + `"}`, status: 413, code: "text_too_long"},
		"an image":             {body: `{"text": "a"}`, contentType: "image/png", status: 415, code: "unsupported_content_type", says: "image/png"},
		"another charset":      {body: `{"text": "a"}`, contentType: "application/json; charset=euc-kr", status: 415, code: "unsupported_content_type"},
		"GET for POST":         {method: http.MethodGet, status: 405, code: "method_not_allowed", says: "want POST, got GET"},
		"DELETE for GET":       {method: http.MethodDelete, path: "/ready", status: 405, code: "method_not_allowed", says: "want GET, HEAD"},
		"a path that is not":   {method: http.MethodGet, path: "/detekt", status: 404, code: "not_found", says: "/detekt"},
		"the root":             {method: http.MethodGet, path: "/", status: 404, code: "not_found", says: "POST /detect"},
		"a path below another": {path: "/detect/x", body: `{"text": "a"}`, status: 404, code: "not_found"},
	}
	for name, tt := range wrong {
		t.Run(name, func(t *testing.T) {
			if tt.method == "" {
				tt.method = http.MethodPost
			}
			if tt.path == "" {
				tt.path = "/detect"
			}
			if tt.contentType == "" {
				tt.contentType = "application/json"
			}
			req := p.request(t, tt.method, tt.path, tt.body)
			req.Header.Set("Content-Type", tt.contentType)
			resp, got := p.do(t, req)
			fault, _ := got["error"].(map[string]any)
			if resp.StatusCode != tt.status || fault["code"] != tt.code || !strings.Contains(fmt.Sprint(fault["message"]), tt.says) {
				t.Errorf("got %d %v, want %d %s with %q", resp.StatusCode, got, tt.status, tt.code, tt.says)
			}
			if allow := resp.Header.Get("Allow"); (allow != "") != (tt.status == 405) {
				t.Errorf("got Allow %q with %d", allow, resp.StatusCode)
			}
		})
	}
}

// stubModel is a model whose loading and answers the test decides.
type stubModel struct {
	entered chan string   // gets each text
	answer  chan struct{} // lets one Detect return
}

func (m *stubModel) Languages() []Language { return []Language{{"Korean", "ko"}} }

func (m *stubModel) Detect(text string) Detection {
	m.entered <- text
	<-m.answer
	return Detection{Best: &Guess{Language{"Korean", "ko"}, 1}}
}

// startWith runs a server of two languages that loads with load.
func startWith(t *testing.T, load loadFunc) *process {
	t.Helper()
	logs := newLogBook(t)
	return launch(t, logs, func(ctx context.Context) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		log := newLogger(logs, slog.LevelInfo)
		log.Info("listening", "addr", ln.Addr().String())
		return newServer(log, load, 2, 1000).run(ctx, ln)
	})
}

func TestTellsHowFarLoadingIs(t *testing.T) {
	next := make(chan struct{})
	p := startWith(t, func(_ context.Context, loaded func([]Language)) (model, error) {
		for _, code := range []string{"ko", "en"} {
			next <- struct{}{}
			loaded([]Language{{code, code}})
		}
		next <- struct{}{}
		return &stubModel{entered: make(chan string, 1)}, nil
	})

	expect := func(loaded ...string) {
		t.Helper()
		want := fmt.Sprint(loaded)
		for deadline := time.Now().Add(patience); ; {
			resp, got := p.get(t, "/ready")
			if fmt.Sprint(got["loaded"]) != want && time.Now().Before(deadline) {
				continue
			}
			if fmt.Sprint(got["loaded"]) != want || resp.StatusCode != http.StatusServiceUnavailable ||
				got["ready"] != false || got["total"] != 2.0 || resp.Header.Get("Retry-After") == "" {
				t.Fatalf("got %d %v %v, want 503 with Retry-After and %s loaded", resp.StatusCode, resp.Header, got, want)
			}
			return
		}
	}
	expect()
	if resp, got := p.detect(t, "안녕"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || got["error"].(map[string]any)["code"] != "loading" {
		t.Errorf("detect while loading: got %d %v", resp.StatusCode, got)
	}
	if resp, _ := p.get(t, "/languages"); resp.StatusCode != 503 {
		t.Errorf("languages while loading: got %d, want 503", resp.StatusCode)
	}
	if resp, got := p.get(t, "/health"); resp.StatusCode != 200 || got["status"] != "alive" {
		t.Errorf("health while loading: got %d %v, want 200", resp.StatusCode, got)
	}
	<-next
	expect("ko")
	<-next
	expect("ko", "en") // all there, but no detection has succeeded yet
	<-next
	p.logs.wait(t, "ready")
	if resp, got := p.get(t, "/ready"); resp.StatusCode != 200 || got["ready"] != true {
		t.Errorf("got %d %v, want ready", resp.StatusCode, got)
	}
}

func TestDrainsOnSIGTERM(t *testing.T) {
	m := &stubModel{entered: make(chan string), answer: make(chan struct{})}
	p := startWith(t, func(context.Context, func([]Language)) (model, error) { return m, nil })
	p.logs.wait(t, "ready")

	status := make(chan int)
	go func() {
		resp, _ := p.detect(t, "안녕")
		status <- resp.StatusCode
	}()
	<-m.entered
	p.stop()
	p.logs.wait(t, "draining")
	select {
	case err := <-p.exit:
		t.Fatalf("ended with %v while a request was under way", err)
	default:
	}
	close(m.answer)
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request under way got %d, want 200", got)
	}
	if err := <-p.exit; err != nil {
		t.Errorf("ended with %v, want a clean end", err)
	}
}

func TestEndsWhenTheModelDoesNotLoad(t *testing.T) {
	p := startWith(t, func(context.Context, func([]Language)) (model, error) { return nil, errors.New("weights are torn") })
	select {
	case err := <-p.exit:
		if err == nil || err.Error() != "load the models: weights are torn" {
			t.Errorf("ended with %v, want the reason", err)
		}
	case <-time.After(patience):
		t.Fatal("still running")
	}
}

func TestSIGTERMWhileLoadingEndsCleanly(t *testing.T) {
	p := startWith(t, func(ctx context.Context, _ func([]Language)) (model, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	p.stop()
	if err := <-p.exit; err != nil {
		t.Errorf("ended with %v, want a clean end", err)
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	tests := map[string]struct {
		env  map[string]string
		says []string
	}{
		"port out of range":         {map[string]string{"PORT": "70000"}, []string{`PORT: want a whole number from 0 to 65535, got "70000"`}},
		"port a word":               {map[string]string{"PORT": "http"}, []string{`PORT: want`, `"http"`}},
		"unknown language":          {map[string]string{"LANGUAGES": "ko,xx"}, []string{`LANGUAGES: want 12, 75 or a list of codes out of af,ar,az`, `got "xx"`}},
		"one language":              {map[string]string{"LANGUAGES": "ko"}, []string{`LANGUAGES: want at least two`}},
		"a language twice":          {map[string]string{"LANGUAGES": "ko,en,KO"}, []string{`LANGUAGES: want each code once, got "KO" twice`}},
		"accuracy":                  {map[string]string{"ACCURACY": "medium"}, []string{`ACCURACY: want full or low, got "medium"`}},
		"text bytes":                {map[string]string{"MAX_TEXT_BYTES": "0"}, []string{`MAX_TEXT_BYTES: want a whole number from 1 to 1048576, got "0"`}},
		"log level":                 {map[string]string{"LOG_LEVEL": "loud"}, []string{`LOG_LEVEL: want debug, info, warn or error, got "loud"`}},
		"two faults are both named": {map[string]string{"PORT": "x", "ACCURACY": "y"}, []string{"PORT", "ACCURACY"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := maps.Clone(tt.env)
			err := run(t.Context(), func(name string) string { return env[name] }, t.Output())
			if err == nil {
				t.Fatalf("%v: started, want an error", env)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: got %q, want %q in it", env, err, want)
				}
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), func(name string) string { return map[string]string{"PORT": port}[name] }, t.Output())
	if err == nil || !strings.Contains(err.Error(), "PORT: open "+port) {
		t.Errorf("got %v, want an error that names PORT and %s", err, port)
	}
}

func FuzzParseText(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"text":"안녕"}`, `{"text":""}`, `{"text":7}`, `[]`, `{"text":"a"}x`, `{"TEXT":"a"}`, "{\"text\":\"\xff\"}", `{"text":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := parseText(body)
		if err == nil {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%q: got an empty text without an error", body)
			}
			return
		}
		if fault, ok := errors.AsType[*requestError](err); !ok || fault.Status != http.StatusBadRequest || fault.Code == "" || fault.Message == "" {
			t.Errorf("%q: got %#v, want a 400 with code and message", body, err)
		}
	})
}
