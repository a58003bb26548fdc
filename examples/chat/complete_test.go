package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestSaysThatItIsASimulator(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	status, head, answer := p.call(http.MethodGet, "/v1/models", "")
	model := answer["data"].([]any)[0].(map[string]any)
	if status != 200 || model["id"] != "tiny" || model["owned_by"] != "penstock-simulator" || !strings.Contains(head.Get("X-Simulator"), "no model") {
		t.Errorf("got %d %v with X-Simulator %q", status, answer, head.Get("X-Simulator"))
	}
	if status, _, answer := p.call(http.MethodGet, "/v1/models/tiny", ""); status != 200 || answer["id"] != "tiny" {
		t.Errorf("one model: got %d %v", status, answer)
	}
}

func TestSamplingDecidesTheText(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	text := func(prompt, more string) string {
		t.Helper()
		text, _, _ := p.ask(prompt, more)
		return text
	}
	base := text("where to?", `"temperature": 1`)
	if again := text("where to?", `"temperature": 1`); again != base {
		t.Errorf("the same request gave %q, then %q", base, again)
	}
	for name, other := range map[string]string{
		"another prompt":         text("where from?", `"temperature": 1`),
		"another seed":           text("where to?", `"temperature": 1, "seed": 7`),
		"another temperature":    text("where to?", `"temperature": 0`),
		"a nucleus of one":       text("where to?", `"temperature": 1, "top_p": 0.01`),
		"the server's (default)": text("where to?", ""),
	} {
		if other == base {
			t.Errorf("%s gave the same text: %q", name, base)
		}
	}
	greedy := text("where to?", `"temperature": 0`)
	if seeded := text("where to?", `"temperature": 0, "seed": 7`); seeded != greedy {
		t.Errorf("temperature 0: got %q and with a seed %q, want the same", greedy, seeded)
	}
	if nucleus := text("where to?", `"temperature": 2, "top_p": 0.01`); nucleus != greedy {
		t.Errorf("top_p 0.01: got %q, want the likeliest %q", nucleus, greedy)
	}
}

func TestLengthAndStop(t *testing.T) {
	p := start(t, map[string]string{"MAX_TOKENS": "12", "TEMPERATURE": "0"})
	p.logs.wait(t, "ready")
	full, finish, tokens := p.ask("tell me", "")
	if finish != "length" || tokens != 12 {
		t.Errorf("the server's limit: got %q, %s after %d tokens, want length after 12", full, finish, tokens)
	}
	if _, finish, tokens := p.ask("tell me", `"max_tokens": 4000`); finish != "length" || tokens != 12 {
		t.Errorf("more than the server's limit: got %s after %d tokens, want length after 12", finish, tokens)
	}
	for _, field := range []string{"max_tokens", "max_completion_tokens"} {
		text, finish, tokens := p.ask("tell me", fmt.Sprintf("%q: 3", field))
		if finish != "length" || tokens != 3 || text != strings.Join(strings.Fields(full)[:3], " ") {
			t.Errorf("%s 3: got %q, %s after %d tokens, want the first three of %q", field, text, finish, tokens, full)
		}
	}
	// A sequence across two tokens: the end of the second word, a space, the beginning of the third.
	words := strings.Fields(full)
	stop := words[1][len(words[1])-1:] + " " + words[2][:1]
	want, _, _ := strings.Cut(full, stop)
	for _, value := range []string{fmt.Sprintf("%q", stop), fmt.Sprintf(`["never", %q]`, stop)} {
		if text, finish, tokens := p.ask("tell me", `"stop": `+value); text != want || finish != "stop" || tokens != 3 {
			t.Errorf("stop %s in %q: got %q, %s after %d tokens, want %q, stop after 3", value, full, text, finish, tokens, want)
		}
	}
}

func TestAnswersEndByThemselves(t *testing.T) {
	p := start(t, map[string]string{"MAX_TOKENS": "100000"})
	p.logs.wait(t, "ready")
	text, finish, tokens := p.ask("how long?", "")
	if finish != "stop" || !strings.HasSuffix(text, ".") || tokens < 15 || tokens > 250 {
		t.Errorf("got %q, %s after %d tokens, want some sentences", text, finish, tokens)
	}
	if got := p.metric("chat_generated_tokens_total"); got != fmt.Sprint(tokens) {
		t.Errorf("chat_generated_tokens_total: got %s, want %d", got, tokens)
	}
	if got := p.metric(`chat_requests_total{status="200"}`); got != "2" { // the question, and the scrape before
		t.Errorf("requests: got %s, want 2", got)
	}
}

func TestPromptsThatAreTaken(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	for name, body := range map[string]string{
		"parts":            `{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}`,
		"all roles":        `{"model": "tiny", "messages": [{"role": "system", "content": "x"}, {"role": "developer", "content": "x"}, {"role": "assistant", "content": "x"}, {"role": "tool", "content": "x"}, {"role": "user", "name": "me", "content": "x"}]}`,
		"neutral settings": question("a", `"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": false, "user": "me", "stop": null, "top_p": 1, "stream": false`),
	} {
		if status, _, answer := p.call(http.MethodPost, "/v1/chat/completions", body); status != 200 {
			t.Errorf("%s: got %d %v, want 200", name, status, answer)
		}
	}
	_, _, answer := p.call(http.MethodPost, "/v1/chat/completions", question("one two, extraordinary 물", ""))
	// 4 for the message; one, two and the comma; extraordinary is three times five letters; and the last word.
	if got := answer["usage"].(map[string]any)["prompt_tokens"]; got != 4.0+1+1+1+3+1 {
		t.Errorf("got %v prompt tokens, want 11", got)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	ask := func(more string) string { return question("hi", more) }
	tests := map[string]struct {
		method, path, body string
		status             int
		code, says         string
		param              any
	}{
		"no body":                {status: 400, code: "empty_body", says: "the body is empty"},
		"not JSON":               {body: "hello", status: 400, code: "not_json"},
		"two objects":            {body: ask("") + "{}", status: 400, code: "not_json", says: "more after"},
		"a list":                 {body: "[]", status: 400, code: "wrong_type", says: "the body: got a JSON array"},
		"a field of another API": {body: ask(`"prompt": "x"`), status: 400, code: "unknown_parameter", param: "prompt", says: "prompt"},
		"tools":                  {body: ask(`"tools": []`), status: 400, code: "unknown_parameter", param: "tools"},
		"no model":               {body: `{"messages": []}`, status: 400, code: "missing_parameter", param: "model"},
		"another model":          {body: `{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}`, status: 404, code: "model_not_found", param: "model", says: `has "tiny", got "gpt-4o"`},
		"no messages":            {body: `{"model": "tiny"}`, status: 400, code: "missing_parameter", param: "messages"},
		"messages of text":       {body: `{"model": "tiny", "messages": "hi"}`, status: 400, code: "wrong_type", param: "messages"},
		"a role that is not":     {body: `{"model": "tiny", "messages": [{"role": "user", "content": "hi"}, {"role": "bot", "content": "hi"}]}`, status: 400, code: "invalid_value", param: "messages[1].role", says: `"bot"`},
		"no content":             {body: `{"model": "tiny", "messages": [{"role": "user"}]}`, status: 400, code: "missing_parameter", param: "messages[0].content"},
		"content of a number":    {body: `{"model": "tiny", "messages": [{"role": "user", "content": 7}]}`, status: 400, code: "wrong_type", param: "messages[0].content"},
		"a picture":              {body: `{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}`, status: 400, code: "unsupported_value", param: "messages[0].content", says: "image_url"},
		"too hot":                {body: ask(`"temperature": 2.5`), status: 400, code: "invalid_value", param: "temperature", says: "want 0 to 2, got 2.5"},
		"temperature in words":   {body: ask(`"temperature": "hot"`), status: 400, code: "wrong_type", param: "temperature"},
		"no nucleus":             {body: ask(`"top_p": 0`), status: 400, code: "invalid_value", param: "top_p"},
		"no tokens":              {body: ask(`"max_tokens": 0`), status: 400, code: "invalid_value", param: "max_tokens", says: "want 1 or more, got 0"},
		"fewer than no tokens":   {body: ask(`"max_completion_tokens": -1`), status: 400, code: "invalid_value", param: "max_completion_tokens"},
		"both limits":            {body: ask(`"max_tokens": 1, "max_completion_tokens": 1`), status: 400, code: "invalid_value", param: "max_tokens"},
		"five stops":             {body: ask(`"stop": ["a","b","c","d","e"]`), status: 400, code: "invalid_value", param: "stop", says: "at most 4 sequences, got 5"},
		"an empty stop":          {body: ask(`"stop": ""`), status: 400, code: "invalid_value", param: "stop"},
		"stop a number":          {body: ask(`"stop": 1`), status: 400, code: "wrong_type", param: "stop"},
		"two choices":            {body: ask(`"n": 2`), status: 400, code: "unsupported_value", param: "n"},
		"a penalty":              {body: ask(`"presence_penalty": 1`), status: 400, code: "unsupported_value", param: "presence_penalty"},
		"another penalty":        {body: ask(`"frequency_penalty": 1`), status: 400, code: "unsupported_value", param: "frequency_penalty"},
		"log probabilities":      {body: ask(`"logprobs": true`), status: 400, code: "unsupported_value", param: "logprobs"},
		"options of no stream":   {body: ask(`"stream_options": {"include_usage": true}`), status: 400, code: "invalid_value", param: "stream_options"},
		"a body without end":     {body: strings.Repeat(" ", 5<<20), status: 413, code: "body_too_large", says: "4194304"},
		"GET for POST":           {method: http.MethodGet, status: 405, code: "method_not_allowed", says: "want POST, got GET"},
		"POST for GET":           {path: "/v1/models", status: 405, code: "method_not_allowed"},
		"a model that is not":    {method: http.MethodGet, path: "/v1/models/gpt-4o", status: 404, code: "model_not_found", param: "model"},
		"a path that is not":     {method: http.MethodGet, path: "/v2/models", status: 404, code: "not_found", says: "/v2/models"},
		"a crash":                {path: "/debug/crash", status: 404, code: "faults_off", says: "FAULTS=on"},
		"a hang":                 {path: "/debug/hang", status: 404, code: "faults_off"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := *p
			p.t = t
			if tt.method == "" {
				tt.method = http.MethodPost
			}
			if tt.path == "" {
				tt.path = "/v1/chat/completions"
			}
			status, head, answer := p.call(tt.method, tt.path, tt.body)
			fault, _ := answer["error"].(map[string]any)
			if status != tt.status || fault["code"] != tt.code || fault["param"] != tt.param || fault["type"] != "invalid_request_error" ||
				!strings.Contains(fmt.Sprint(fault["message"]), tt.says) {
				t.Errorf("got %d %v, want %d %s for %v with %q", status, answer, tt.status, tt.code, tt.param, tt.says)
			}
			if allow := head.Get("Allow"); (allow != "") != (status == 405) {
				t.Errorf("got Allow %q with %d", allow, status)
			}
		})
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, question("hi", ""), question("hi", `"stop": ["a", "b"], "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true}`),
		question("hi", `"temperature": 1e400`), `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]}`, `{"model":"m","messages":[null]}`,
	} {
		f.Add([]byte(seed))
	}
	cfg := config{MaxTokens: 100, Temperature: 0.5}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := parseRequest(body, cfg)
		if err != nil {
			if fault, ok := errors.AsType[*apiError](err); !ok || fault.Status != http.StatusBadRequest || fault.Code == "" || fault.Message == "" {
				t.Errorf("%q: got %#v, want a 400 with code and message", body, err)
			}
			return
		}
		s := req.Sampling
		if req.MaxTokens < 1 || req.MaxTokens > 100 || s.Temperature < 0 || s.Temperature > 2 || s.TopP <= 0 || s.TopP > 1 || req.PromptTokens < 4 {
			t.Errorf("%q: got %+v", body, req)
		}
		gen := newGeneration(req.Prompt, s)
		for range 1000 {
			if _, more := gen.next(); !more {
				return
			}
		}
		t.Errorf("%q: the text does not end", body)
	})
}
