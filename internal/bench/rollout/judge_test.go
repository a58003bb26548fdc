package rollout

import (
	"strings"
	"testing"
	"time"

	"penstock/internal/load"
)

// A failure is excused only if a kill explains it: by its time, by what the client saw, by whether the request may be sent again, and
// by how many requests the killed one had in hand.
func TestJudge(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	replica := kill{what: "replica", replica: true, from: at(10), end: at(10.1), excuses: 1}
	ingress := kill{what: "ingress", from: at(20), end: at(20.5), excuses: 2}
	post := failure{kind: "POST", sent: at(9.99), ended: at(10.05), class: load.Status}
	tests := map[string]struct {
		failures []failure
		lost     int
	}{
		"a POST to a killed replica":                           {[]failure{post}, 0},
		"two, where the replica had one":                       {[]failure{post, post}, 1},
		"a GET may be sent again":                              {[]failure{{kind: "GET", sent: post.sent, ended: post.ended, class: load.Status, repeatable: true}}, 1},
		"a GET whose response had begun":                       {[]failure{{kind: "GET", sent: post.sent, ended: post.ended, class: load.Cut, repeatable: true}}, 0},
		"the ingress ends its connection for a killed replica": {[]failure{{kind: "POST", sent: post.sent, ended: post.ended, class: load.Reset}}, 1},
		"sent after the kill":                                  {[]failure{{kind: "POST", sent: at(10.2), ended: at(10.3), class: load.Status}}, 1},
		"ended before the kill":                                {[]failure{{kind: "POST", sent: at(9), ended: at(9.5), class: load.Status}}, 1},
		"in hand of a killed ingress":                          {[]failure{{kind: "GET", sent: at(19.9), ended: at(20.1), class: load.Closed, repeatable: true}}, 0},
		"refused while the ingress is away":                    {[]failure{{kind: "GET", sent: at(20.1), ended: at(20.1), class: load.Refused, repeatable: true}}, 1},
		"no answer":                                            {[]failure{{kind: "GET", sent: at(19.9), ended: at(50), class: load.Timeout, repeatable: true}}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var r Result
			r.judge(test.failures, []kill{replica, ingress})
			if r.Lost != test.lost {
				t.Errorf("%d of %d failures are lost, want %d: %+v", r.Lost, len(test.failures), test.lost, r.Failures)
			}
		})
	}
}

// The records of a load come in pieces of any length.
func TestSeen(t *testing.T) {
	const text = `{"n":0,"scheduledNs":0,"sentNs":3,"lastByteNs":9}` + "\n" + `{"n":3,"sentNs":8,"lastByteNs":9}` + "\n" + `{"n":1,"scheduledNs":5,"lastByteNs":99,"error":"cut","detail":"x"}` + "\n" + `{"n":2,"scheduledNs":5,"error":"stopped"}` + "\n"
	for size := 1; size <= len(text); size++ {
		var s seen
		for rest := []byte(text); len(rest) > 0; {
			piece := rest[:min(size, len(rest))]
			if n, err := s.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("pieces of %d: wrote %d, %v", size, n, err)
			}
			rest = rest[len(piece):]
		}
		if s.requests.Load() != 4 || s.slowest.N != 0 || s.slowest.LastByte != 9 || len(s.failed) != 1 || s.failed[0].N != 1 || s.failed[0].Detail != "x" {
			t.Errorf("pieces of %d: %d requests, slowest %+v, failed %+v", size, s.requests.Load(), s.slowest, s.failed)
		}
	}
}

// A slow request names the changes that were made while it was under way.
func TestSlowest(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	changes := []change{{"kills of control", at(0), at(2)}, {"revision switches", at(2), at(5)}, {"scale-ins", at(5), at(9)}, {"scale-ins", at(9), at(10)}}
	got := during([]Slow{{Kind: "GET", Sent: at(3), MS: 1000}, {Kind: "POST", Sent: at(4), MS: 5500}, {Kind: "GET", Sent: at(11), MS: 500}}, changes)
	for i, want := range []string{"revision switches", "revision switches, scale-ins", ""} {
		if is := strings.Join(got[i].During, ", "); is != want {
			t.Errorf("request %d: got %q, want %q", i, is, want)
		}
	}
}
