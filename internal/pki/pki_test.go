package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/pki"
)

func authority(t testing.TB, dir string) *pki.Authority {
	t.Helper()
	a, err := pki.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *pki.Authority, names ...string) *x509.Certificate {
	t.Helper()
	certPEM, keyPEM, _, err := a.Issue(names)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func pool(t testing.TB, a *pki.Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(a.CertPEM()) {
		t.Fatalf("no certificate in %q", a.CertPEM())
	}
	return p
}

func TestClientThatTrustsTheAuthorityTrustsTheServer(t *testing.T) {
	a := authority(t, t.TempDir())
	certPEM, keyPEM, _, err := a.Issue([]string{"127.0.0.1", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, a)}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

func TestLeafIsForItsNames(t *testing.T) {
	a := authority(t, t.TempDir())
	leaf := issue(t, a, "localhost", "*.Penstock.localhost", "127.0.0.1", "::1")
	for name, want := range map[string]bool{
		"localhost": true, "chat.penstock.localhost": true, "127.0.0.1": true, "::1": true,
		"penstock.localhost": false, "a.b.penstock.localhost": false, "example.com": false, "127.0.0.2": false,
	} {
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool(t, a)})
		if got := err == nil; got != want {
			t.Errorf("%s: trusted is %v, want %v (%v)", name, got, want, err)
		}
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("got key %T, want ECDSA P-256", leaf.PublicKey)
	}
	if left := time.Until(leaf.NotAfter); left < 364*24*time.Hour || left > 398*24*time.Hour {
		t.Errorf("leaf lives for %v, want one year", left)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool(t, authority(t, t.TempDir()))}); err == nil {
		t.Error("another authority vouches for the leaf")
	}
}

func TestRestartGivesTheSame(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir)
	leaf := issue(t, a, "localhost", "127.0.0.1")
	b := authority(t, dir)
	if !bytes.Equal(a.CertPEM(), b.CertPEM()) {
		t.Error("another authority after a restart")
	}
	if !issue(t, b, "127.0.0.1", "LOCALHOST", "localhost").Equal(leaf) {
		t.Error("another leaf for the same names in another order")
	}
	if issue(t, b, "localhost").Equal(leaf) {
		t.Error("the same leaf for fewer names")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 4 {
		t.Errorf("files: %v, %v; want authority, its key and two leaves", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", f, info.Mode().Perm())
		}
	}
}

func TestLeafIsRenewedBeforeItsEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := authority(t, dir)
		first := issue(t, a, "localhost")
		time.Sleep(334 * 24 * time.Hour)
		if !issue(t, a, "localhost").Equal(first) {
			t.Error("31 days before its end: another leaf")
		}
		time.Sleep(48 * time.Hour)
		second := issue(t, a, "localhost")
		if second.Equal(first) {
			t.Error("29 days before its end: still the old leaf")
		}
		if !issue(t, authority(t, dir), "localhost").Equal(second) {
			t.Error("after a restart: another leaf than the renewed one")
		}
		_, _, renew, err := a.Issue([]string{"localhost"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(renew) - time.Minute)
		if !issue(t, a, "localhost").Equal(second) {
			t.Error("before the time that was said: another leaf")
		}
		time.Sleep(2 * time.Minute)
		if issue(t, a, "localhost").Equal(second) {
			t.Error("after the time that was said: still the old leaf")
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		if _, err := pki.LoadOrCreate(dir); err == nil || !strings.Contains(err.Error(), "expired on") {
			t.Errorf("after ten years: got %v, want that it expired", err)
		}
	})
}

func TestLeafOfAnotherAuthorityIsReplaced(t *testing.T) {
	dir := t.TempDir()
	issue(t, authority(t, dir), "localhost")
	for _, name := range []string{"ca.pem", "ca.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	a := authority(t, dir)
	if _, err := issue(t, a, "localhost").Verify(x509.VerifyOptions{DNSName: "localhost", Roots: pool(t, a)}); err != nil {
		t.Error(err)
	}
}

func TestCallersAtOnceGetOneLeaf(t *testing.T) {
	a := authority(t, t.TempDir())
	var leaves [8]*x509.Certificate
	var wg sync.WaitGroup
	for i := range leaves {
		wg.Go(func() { leaves[i] = issue(t, a, "localhost") })
	}
	wg.Wait()
	for _, leaf := range leaves {
		if !leaf.Equal(leaves[0]) {
			t.Fatal("two leaves for one name")
		}
	}
}

func TestNamesThatAreNone(t *testing.T) {
	a := authority(t, t.TempDir())
	for _, name := range []string{"", "a b", "-a", "a..b", "*", "*.", "a.*.b", "http://a", "a/../b", "모델", strings.Repeat("a", 64), "fe80::1%eth0"} {
		if _, _, _, err := a.Issue([]string{"localhost", name}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("name %q: want", name)) {
			t.Errorf("name %q: got %v", name, err)
		}
	}
	if _, _, _, err := a.Issue(nil); err == nil {
		t.Error("a certificate of no name")
	}
}

func TestWhatIsWrongWithAFileIsSaid(t *testing.T) {
	truncate := func(path string) error { return os.Truncate(path, 20) }
	empty := func(path string) error { return os.Truncate(path, 0) }
	open := func(path string) error { return os.Chmod(path, 0o640) }
	foreign := func(path string) error {
		other := filepath.Join(filepath.Dir(path), "other")
		if _, err := pki.LoadOrCreate(other); err != nil {
			return err
		}
		return os.Rename(filepath.Join(other, filepath.Base(path)), path)
	}
	leafAsCA := func(path string) error {
		leaf, err := filepath.Glob(filepath.Join(filepath.Dir(path), "leaf-*.pem"))
		if err != nil {
			return err
		}
		both, err := os.ReadFile(leaf[0])
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "ca.key"), both, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, both, 0o600)
	}
	tests := map[string]struct {
		file string
		harm func(path string) error
		want string
	}{
		"key cut":                     {"ca.key", truncate, "damaged"},
		"key empty":                   {"ca.key", empty, "damaged"},
		"key readable for others":     {"ca.key", open, "mode 0640, want 0600"},
		"key gone":                    {"ca.key", os.Remove, "no such file"},
		"key of another authority":    {"ca.key", foreign, "does not match"},
		"certificate cut":             {"ca.pem", truncate, "damaged"},
		"certificate empty":           {"ca.pem", empty, "damaged"},
		"certificate of no authority": {"ca.pem", leafAsCA, "want the certificate of an authority"},
		"leaf cut":                    {"leaf-*.pem", truncate, "damaged"},
		"leaf empty":                  {"leaf-*.pem", empty, "damaged"},
		"leaf readable for others":    {"leaf-*.pem", open, "mode 0640, want 0600"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			issue(t, authority(t, dir), "localhost")
			paths, err := filepath.Glob(filepath.Join(dir, test.file))
			if err != nil || len(paths) != 1 {
				t.Fatalf("%s: %v, %v", test.file, paths, err)
			}
			if err := test.harm(paths[0]); err != nil {
				t.Fatal(err)
			}
			a, err := pki.LoadOrCreate(dir)
			if err == nil {
				_, _, _, err = a.Issue([]string{"localhost"})
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), paths[0]) {
				t.Errorf("got %v, want %q and %s", err, test.want, paths[0])
			}
		})
	}
}

func TestHalfMadeAuthorityIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil { // a crash between the two files
		t.Fatal(err)
	}
	issue(t, authority(t, dir), "localhost")
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "token")
	first, err := pki.TokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 64 {
		t.Errorf("got a token of %d digits, want 64", len(first))
	}
	if again, err := pki.TokenFile(path); again != first || err != nil {
		t.Errorf("second time: got another token, %v", err)
	}
	if other, err := pki.TokenFile(path + "2"); other == first || err != nil {
		t.Errorf("another file: the same token, %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.TokenFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("readable for all: got %v", err)
	}
	for _, content := range []string{"", "secret", first[:62], first + " " + first} {
		if err := os.WriteFile(path+"3", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := pki.TokenFile(path + "3")
		if err == nil || !strings.Contains(err.Error(), path+"3: want 64 hexadecimal digits") {
			t.Errorf("content %q: got %q, %v", content, token, err)
		}
		if err != nil && content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "secrets.key")
	first, err := pki.KeyFile(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("got a key of %d bytes, %v", len(first), err)
	}
	if again, err := pki.KeyFile(path); !bytes.Equal(again, first) || err != nil {
		t.Errorf("second time: got another key, %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if err := os.WriteFile(path+"2", []byte(strings.Repeat("ab", 33)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.KeyFile(path + "2"); err == nil || !strings.Contains(err.Error(), "want 64 hexadecimal digits, found 66") {
		t.Errorf("a key of 33 bytes: %v", err)
	}
	if err := os.WriteFile(path+"3", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.KeyFile(path + "3"); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("an empty key file: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.KeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("readable for its group: %v", err)
	}
}
