package load_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/internal/load"
)

func TestParseStepsNamesWhatIsWrong(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"nothing":       {"", `step 1: want a rate and a time such as "10/s for 30s", got ""`},
		"no time":       {"10/s for 30s, 5/s", `step 2: want a rate and a time`},
		"no unit":       {"10 for 30s", `step 1: want a rate a second or a minute such as 10/s or 90/m, got "10"`},
		"below 0":       {"-1/s for 30s", `step 1: want a rate from 0 to 1000000/s, got "-1/s"`},
		"not a number":  {"NaN/s for 30s", `step 1: want a rate from 0`},
		"no time unit":  {"1/s for 30", `step 1: want a time above 0 and up to 168h0m0s such as 30s, got "30"`},
		"time of 0":     {"1/s for 0s", `step 1: want a time above 0`},
		"long together": {"1/s for 167h, 1/s for 167h", `steps: want up to 168h0m0s together, got 334h0m0s`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := load.ParseSteps(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q: got %v, want %q", test.text, err, test.want)
			}
		})
	}
}

func FuzzParseSteps(f *testing.F) {
	for _, s := range []string{"10/s for 30s, 100/s for 10s", "0.5/s for 1m,90/m for 2h", "1e3/s for 1ns", " 1/s  for 1s ", "1/s for", "/s for 1s", "Inf/s for 1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := load.ParseSteps(text)
		if err != nil {
			return
		}
		due := 0.0
		for _, s := range steps {
			due += s.PerSecond * s.For.Seconds()
		}
		const enough = 10_000
		got, last := 0, time.Duration(0)
		for a := range load.Stepped(steps) {
			if a.At < last || a.At > load.Total(steps) {
				t.Fatalf("%q: arrival %d at %s after %s, of %s", text, got, a.At, last, load.Total(steps))
			}
			last = a.At
			if got++; got == enough {
				return
			}
		}
		if math.Abs(float64(got)-math.Ceil(due)) > 1 {
			t.Fatalf("%q: got %d arrivals, want %.3f", text, got, due)
		}
	})
}

func TestReadTrace(t *testing.T) {
	tests := map[string]struct {
		text, fault string
		want        []load.Arrival
	}{
		"seconds without a header":  {text: "5.5\n6\n7.25\n", want: []load.Arrival{{}, {At: 500e6}, {At: 1750e6}}},
		"columns in another order":  {text: "GeneratedTokens,arrived_at\n7,1\n8,2\n", want: []load.Arrival{{GeneratedTokens: 7}, {At: 1e9, GeneratedTokens: 8}}},
		"out of order":              {text: "3\n1\n2\n", want: []load.Arrival{{}, {At: 1e9}, {At: 2e9}}},
		"RFC 3339, carriage return": {text: "time\r\n2026-01-01T00:00:00Z\r\n2026-01-01T01:00:00+00:30\r\n", want: []load.Arrival{{}, {At: 30 * time.Minute}}},
		"byte order mark":           {text: "\ufeffTIMESTAMP\n1\n2\n", want: []load.Arrival{{}, {At: 1e9}}},
		"empty":                     {text: "", fault: "no arrivals"},
		"header alone":              {text: "TIMESTAMP\n", fault: "no arrivals"},
		"no time in the header":     {text: "a,b\n1,2\n", fault: `want a time or a header with one of the columns timestamp, time, arrived_at, arrival_timestamp, got "a,b"`},
		"no time in a line":         {text: "TIMESTAMP\n1\nsoon\n", fault: `line 3: want a time such as 2023-11-16 18:17:03.9799600, RFC 3339 or seconds, got "soon"`},
		"tokens below 0":            {text: "TIMESTAMP,ContextTokens\n1,-2\n", fault: `line 2: want a number of tokens, got "-2"`},
		"a column too few":          {text: "TIMESTAMP,ContextTokens\n1\n", fault: "wrong number of fields"},
		"years apart":               {text: "0\n1e10\n", fault: "line 2: want a time within 168h0m0s of the first"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := load.ReadTrace(strings.NewReader(test.text))
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("got %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil || len(got) != len(test.want) {
				t.Fatalf("got %v, %v, want %v", got, err, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("arrival %d: got %+v, want %+v", i, got[i], test.want[i])
				}
			}
		})
	}
}

func FuzzReadTrace(f *testing.F) {
	for _, name := range []string{"AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b[:500]))
	}
	for _, s := range []string{"1\n2\n", "time,contexttokens\n2026-01-01T00:00:00Z,\"3\"\n", "\"", "1e309\n", "-1e10\n1e10\n", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := load.ReadTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		last := time.Duration(0)
		for i, a := range trace {
			if i == 0 && a.At != 0 || a.At < last || a.ContextTokens < 0 || a.GeneratedTokens < 0 {
				t.Fatalf("arrival %d of %q: %+v after %s", i, text, a, last)
			}
			last = a.At
		}
	})
}

func TestParseResolve(t *testing.T) {
	tests := map[string]struct{ text, from, to string }{
		"as curl has it":     {"App.example:80:127.0.0.1", "app.example:80", "127.0.0.1:80"},
		"a port of its own":  {"app.example:80:127.0.0.1:8080", "app.example:80", "127.0.0.1:8080"},
		"IPv6":               {"app.example:443:[::1]", "app.example:443", "[::1]:443"},
		"IPv6 bare":          {"app.example:443:::1", "app.example:443", "[::1]:443"},
		"IPv6 and a port":    {"app.example:443:[::1]:8443", "app.example:443", "[::1]:8443"},
		"a name is no place": {text: "app.example:80:elsewhere"},
		"no address":         {text: "app.example:80"},
		"no host":            {text: ":80:127.0.0.1"},
		"no port":            {text: "app.example::127.0.0.1"},
		"port too large":     {text: "app.example:65536:127.0.0.1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			from, to, err := load.ParseResolve(test.text)
			if from != test.from || to != test.to || (err == nil) != (test.to != "") {
				t.Errorf("%q: got %q, %q, %v, want %q, %q", test.text, from, to, err, test.from, test.to)
			}
		})
	}
}
