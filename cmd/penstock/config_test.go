package main

import (
	"reflect"
	"testing"
)

// Package main cannot be imported, so what has no behaviour of its own to be seen by is tested from inside.

func TestBytes(t *testing.T) {
	tests := map[string]struct {
		text string
		want int64
		ok   bool
	}{
		"plain":         {"1024", 1024, true},
		"mebibytes":     {"512Mi", 512 << 20, true},
		"gibibytes":     {"1Gi", 1 << 30, true},
		"none":          {"0", 0, true},
		"negative":      {"-1Gi", 0, false},
		"fraction":      {"1.5Gi", 0, false},
		"decimal unit":  {"1GB", 0, false},
		"empty":         {"", 0, false},
		"only the unit": {"Gi", 0, false},
		"too large":     {"9000000000Gi", 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseBytes(tt.text)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("%q: got %d, %v, want %d, ok %v", tt.text, got, err, tt.want, tt.ok)
			}
		})
	}
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"1Gi", "512Mi", "0", "9999999999999999999", "-1", "1 Gi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseBytes(s)
		if err != nil {
			return
		}
		if back, err := parseBytes(formatBytes(n)); err != nil || back != n {
			t.Errorf("%q is %d, written %q, read again %d, %v", s, n, formatBytes(n), back, err)
		}
	})
}

func FuzzConfigFile(f *testing.F) {
	for _, s := range []string{"http: 127.0.0.1:8080\ndrain: 5m\n", "", "a: [1]", "a: &x 1\nb: *x", "- a", "overcommit: 1.5\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := parseFile(b)
		if err != nil && values != nil {
			t.Errorf("%q: both %v and %v", b, values, err)
		}
	})
}

func TestDefaultsAreValid(t *testing.T) {
	for _, root := range []bool{true, false} {
		c := defaults(root, "/opt/penstock/bin/penstock")
		if err := c.Validate(); err != nil {
			t.Errorf("root %v: %v", root, err)
		}
		if c.Engines != "/opt/penstock/bin" {
			t.Errorf("root %v: engines in %s, want the folder of the program", root, c.Engines)
		}
		if names := c.exposed(); len(names) > 0 {
			t.Errorf("root %v: %v can be reached from elsewhere", root, names)
		}
	}
}

func TestExposed(t *testing.T) {
	tests := map[string]struct {
		http string
		want bool
	}{
		"loopback":    {"127.0.0.1:80", false},
		"loopback v6": {"[::1]:80", false},
		"localhost":   {"localhost:80", false},
		"everywhere":  {":80", true},
		"all of IPv4": {"0.0.0.0:80", true},
		"an address":  {"192.0.2.1:80", true},
		"a host name": {"models.example.com:80", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := defaults(true, "/x/penstock")
			c.HTTP = tt.http
			if got := len(c.exposed()) > 0; got != tt.want {
				t.Errorf("%s: got %v, want %v", tt.http, got, tt.want)
			}
		})
	}
}

func FuzzMirrors(f *testing.F) {
	for _, s := range []string{"docker.io=mirror.example:5000/hub/x,docker.io=second.example", "", "a=b=c", "=", "a=b/../c", "A=B", "[::1]:5=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMirrors(s)
		if err != nil {
			return
		}
		if back, err := parseMirrors(formatMirrors(m)); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%q is %v, written %q, read again %v, %v", s, m, formatMirrors(m), back, err)
		}
	})
}
