package cli

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// No command shows which sources are asked, so they are tested from inside.
func TestLocalSources(t *testing.T) {
	tests := map[string]struct {
		switched, servers string
		want              []string
	}{
		"Debian's":             {"passwd: files\nhosts: files dns\n", "nameserver 192.0.2.1\n", []string{"files"}},
		"a stub on loopback":   {"hosts:\tfiles  dns # all\n", "nameserver 127.0.0.53\noptions edns0", []string{"files", "dns"}},
		"one server elsewhere": {"hosts: files dns", "nameserver 127.0.0.1\nnameserver 192.0.2.1", []string{"files"}},
		"no server named":      {"hosts: dns", "", []string{"dns"}},
		"systemd's": {"hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns", "nameserver 192.0.2.1",
			[]string{"mymachines", "resolve", "files", "myhostname"}},
		"actions with spaces": {"hosts: files mdns4_minimal [ NOTFOUND=return SUCCESS=continue ] dns", "nameserver ::1", []string{"files", "dns"}},
		"commented out":       {"# hosts: files\n", "", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := localSources([]byte(test.switched), []byte(test.servers)); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Whatever the file has, a block that was added and removed leaves it as it was, but for the end of its last line.
func FuzzHosts(f *testing.F) {
	f.Add("127.0.0.1 localhost\n", "0badcafe")
	f.Add("# BEGIN penstock 0badcafe\n# END penstock 0badcafe\n", "0badcafe")
	f.Add("x# BEGIN penstock 0badcafe\n", "0badcafe")
	f.Fuzz(func(t *testing.T, content, instance string) {
		if strings.Contains(instance, "\n") {
			t.Skip("an instance is eight hex digits")
		}
		address := netip.MustParseAddr("127.0.0.1")
		before, err := hostsWith([]byte(content), instance, address, nil)
		if err != nil {
			return
		}
		with, err := hostsWith(before, instance, address, []string{"a.test", "b.test"})
		if err != nil || !strings.Contains(string(with), "127.0.0.1 a.test\n127.0.0.1 b.test\n") {
			if lineAt(before, []byte(hostsBegin(instance))) >= 0 {
				return // there were several blocks
			}
			t.Fatalf("%q, %q: got %q, %v", content, instance, with, err)
		}
		after, err := hostsWith(with, instance, address, nil)
		if err != nil || strings.TrimSuffix(string(after), "\n") != strings.TrimSuffix(string(before), "\n") {
			t.Errorf("%q, %q: got %q, %v, want %q", content, instance, after, err, before)
		}
	})
}
