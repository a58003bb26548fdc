package pki

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour // clients of some platforms refuse more than 398 days
	renewBefore   = 30 * 24 * time.Hour
	// clockSlack lets a client whose clock is a little behind trust a certificate at once.
	clockSlack = 5 * time.Minute
)

// Authority issues certificates. Its methods may be called from many goroutines.
type Authority struct {
	dir     string
	certPEM []byte
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey

	mu sync.Mutex // over the files of leaves, so that two callers of one set of names get one certificate
}

// LoadOrCreate loads the authority that is kept in dir, or makes one. It refuses a key that others than its owner may
// read, and never replaces a damaged one: clients were told to trust it.
func LoadOrCreate(dir string) (*Authority, error) {
	a, err := loadOrCreate(dir)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}

func loadOrCreate(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := readSecret(keyPath)
	if errors.Is(certErr, os.ErrNotExist) {
		// The certificate is written last: a key without one is what a crash between the two leaves.
		if keyErr != nil && !errors.Is(keyErr, os.ErrNotExist) {
			return nil, keyErr
		}
		var err error
		if certPEM, keyPEM, err = create(certPath, keyPath); err != nil {
			return nil, err
		}
	} else if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	pair, err := parsePair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w; restore both, or remove both to make a new authority that clients must then be told to trust", certPath, keyPath, err)
	}
	switch left := time.Until(pair.leaf.NotAfter); {
	case !pair.leaf.IsCA:
		return nil, fmt.Errorf("%s: want the certificate of an authority, found one of %s", certPath, pair.leaf.Subject)
	case left <= 0:
		return nil, fmt.Errorf("%s: expired on %s; remove it and %s to make a new authority", certPath, pair.leaf.NotAfter.Format(time.DateOnly), keyPath)
	}
	return &Authority{dir: dir, certPEM: certPEM, cert: pair.leaf, key: pair.key}, nil
}

// CertPEM is the authority's certificate, for clients to trust.
func (a *Authority) CertPEM() []byte { return slices.Clone(a.certPEM) }

// Issue returns a certificate, with the authority's behind it, and its key for a server of the given names: host names,
// wildcards ("*.penstock.localhost") and IP addresses. The same names give the same certificate until it nears its end,
// over restarts too.
func (a *Authority) Issue(names []string) (certPEM, keyPEM []byte, err error) {
	certPEM, keyPEM, err = a.issue(names)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of %s: %w", strings.Join(names, ", "), err)
	}
	return certPEM, keyPEM, nil
}

func (a *Authority) issue(names []string) (certPEM, keyPEM []byte, err error) {
	template, err := leafTemplate(names)
	if err != nil {
		return nil, nil, err
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(template.DNSNames)))
	for _, ip := range template.IPAddresses {
		sorted = append(sorted, ip.String())
	}
	slices.Sort(sorted)
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	path := filepath.Join(a.dir, "leaf-"+hex.EncodeToString(sum[:8])+".pem")

	a.mu.Lock()
	defer a.mu.Unlock()
	content, err := readSecret(path)
	if err == nil {
		certPEM, keyPEM = splitLeaf(content)
		pair, err := parsePair(certPEM, keyPEM)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w; remove it to have it made again", path, err)
		}
		if pair.leaf.CheckSignatureFrom(a.cert) == nil && time.Until(pair.leaf.NotAfter) > renewBefore {
			return certPEM, keyPEM, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}

	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	certPEM, keyPEM, err = sign(template, a.cert, a.key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = append(certPEM, a.certPEM...)
	if err := writeWhole(path, slices.Concat(keyPEM, certPEM)); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, nil
}

func leafTemplate(names []string) (*x509.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("want at least one name, got none")
	}
	now := time.Now()
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Penstock"},
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
			t.IPAddresses = append(t.IPAddresses, net.IP(ip.Unmap().AsSlice()))
			continue
		}
		host := strings.ToLower(strings.TrimSuffix(name, "."))
		if !validHost(strings.TrimPrefix(host, "*.")) {
			return nil, fmt.Errorf("name %q: want a host name, *. and a domain, or an IP address", name)
		}
		t.DNSNames = append(t.DNSNames, host)
	}
	return t, nil
}

// validHost follows RFC 1123, section 2.1, with the underscore that host names in use have.
func validHost(host string) bool {
	if len(host) == 0 || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		plain := strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789_-")
		if label == "" || len(label) > 63 || plain != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

func create(certPath, keyPath string) (certPEM, keyPEM []byte, err error) {
	now := time.Now()
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		// The name tells two authorities apart in a trust store.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Penstock CA of %s, %s", host, now.UTC().Format(time.DateOnly))},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	certPEM, keyPEM, err = sign(template, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := writeWhole(keyPath, keyPEM); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, writeWhole(certPath, certPEM)
}
