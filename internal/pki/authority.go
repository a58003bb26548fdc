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

	"penstock/internal/atomicfile"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour // clients on some platforms reject certificates valid for more than 398 days
	renewBefore   = 30 * 24 * time.Hour
	renewAgain    = 12 * time.Hour
	// clockSlack backdates certificates, so that a client whose clock is slightly behind accepts them at once.
	clockSlack = 5 * time.Minute
)

// Authority issues certificates. Its methods are safe for concurrent use.
type Authority struct {
	dir     string
	certPEM []byte
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey

	mu sync.Mutex // guards the leaf files, so that two callers with the same names get the same certificate
}

// LoadOrCreate loads the authority in dir, or creates one. It rejects a key that anyone but its owner can read. It never
// replaces a damaged authority, because clients already trust it.
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
		// The certificate is written last. A key without a certificate is left by a crash between the two writes.
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

// CertPEM returns the authority's certificate, which clients must trust.
func (a *Authority) CertPEM() []byte { return slices.Clone(a.certPEM) }

// Issue returns a certificate (followed by the authority's) and its key for a server with the given names: host names,
// wildcards ("*.penstock.localhost") and IP addresses. The same names give the same certificate, even after a restart, until
// the time renew. From then on Issue returns a new one.
func (a *Authority) Issue(names []string) (certPEM, keyPEM []byte, renew time.Time, err error) {
	certPEM, keyPEM, end, err := a.issue(names)
	if err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("certificate of %s: %w", strings.Join(names, ", "), err)
	}
	renew = end.Add(-renewBefore)
	// No certificate is valid longer than the authority's. In the authority's last days, a new certificate ends when the
	// previous one does.
	if soon := time.Now().Add(renewAgain); renew.Before(soon) {
		renew = soon
	}
	return certPEM, keyPEM, renew, nil
}

// issue is Issue with an explicit end of validity.
func (a *Authority) issue(names []string) (certPEM, keyPEM []byte, end time.Time, err error) {
	fail := func(err error) ([]byte, []byte, time.Time, error) { return nil, nil, time.Time{}, err }
	template, err := leafTemplate(names)
	if err != nil {
		return fail(err)
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
			return fail(fmt.Errorf("%s: %w; remove it to have it made again", path, err))
		}
		if pair.leaf.CheckSignatureFrom(a.cert) == nil && time.Until(pair.leaf.NotAfter) > renewBefore {
			return certPEM, keyPEM, pair.leaf.NotAfter, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}

	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	certPEM, keyPEM, err = sign(template, a.cert, a.key)
	if err != nil {
		return fail(err)
	}
	certPEM = append(certPEM, a.certPEM...)
	if err := atomicfile.Write(path, slices.Concat(keyPEM, certPEM), 0o600); err != nil {
		return fail(err)
	}
	return certPEM, keyPEM, template.NotAfter, nil
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

// validHost follows RFC 1123, section 2.1, and also allows underscores, which exist in practice.
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
		// The name distinguishes authorities in a trust store.
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
	if err := atomicfile.Write(keyPath, keyPEM, 0o600); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, atomicfile.Write(certPath, certPEM, 0o600)
}
