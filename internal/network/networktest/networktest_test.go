package networktest_test

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"penstock/internal/network/networktest"
)

func TestWhatLeavesArrivesAtTheGateway(t *testing.T) {
	networktest.Run(t, func(t *testing.T, out *networktest.Gateway) {
		out.Serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "you asked "+r.Host)
		}))
		client := &http.Client{Timeout: 10 * time.Second}
		resp, err := client.Get("http://10.1.2.3:8080/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "you asked 10.1.2.3:8080" {
			t.Errorf("got %q, %v", b, err)
		}
		if got := out.Arrived(netip.MustParsePrefix("10.1.0.0/16")); got["tcp:8080"] == 0 || len(got) != 1 {
			t.Errorf("arrived for 10.1.0.0/16: %v, want packets to tcp:8080 alone", got)
		}
		if got := out.Arrived(netip.MustParsePrefix("10.2.0.0/16")); len(got) != 0 {
			t.Errorf("arrived for 10.2.0.0/16: %v, want none", got)
		}
		names, err := os.ReadDir("/sys/class/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if n.Name() != "lo" && n.Name() != networktest.Device && !strings.HasPrefix(n.Name(), "sit") {
				t.Errorf("device %s is in the test's network", n.Name())
			}
		}
	})
}
