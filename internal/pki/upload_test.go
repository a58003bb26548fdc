package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"penstock/internal/pki"
)

// sign makes a certificate of a new key, signed by parent, or by itself.
func sign(t testing.TB, name string, key crypto.Signer, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

func TestReadUpload(t *testing.T) {
	caKey, key, other := ecKey(t), ecKey(t), ecKey(t)
	ca := sign(t, "CA", caKey, nil, nil)
	leaf := sign(t, "chat.example", key, ca, caKey)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("no RSA key of 1024 bits can be made here:", err)
	}
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(key)
	sec1, _ := x509.MarshalECPrivateKey(key)
	keyPEM, leafPEM, caPEM := pemOf("PRIVATE KEY", pkcs8), pemOf("CERTIFICATE", leaf.Raw), pemOf("CERTIFICATE", ca.Raw)
	pfx := func(enc *pkcs12.Encoder, key any, password string) string {
		t.Helper()
		file, err := enc.Encode(key, leaf, []*x509.Certificate{ca}, password)
		if err != nil {
			t.Fatal(err)
		}
		return string(file)
	}
	for name, test := range map[string]struct{ file, password, want string }{
		"PFX":                               {pfx(pkcs12.Modern2023, key, "secret"), "secret", ""},
		"PFX as old Windows makes it":       {pfx(pkcs12.LegacyDES, key, "secret"), "secret", ""},
		"PFX without a password":            {pfx(pkcs12.Modern2023, key, ""), "", ""},
		"PEM":                               {leafPEM + caPEM + keyPEM, "", ""},
		"PEM in another order":              {keyPEM + caPEM + leafPEM, "", ""},
		"PEM with text and an older key":    {"Bag Attributes\n" + leafPEM + "\n" + caPEM + pemOf("EC PRIVATE KEY", sec1), "", ""},
		"PFX and another password":          {pfx(pkcs12.Modern2023, key, "secret"), "guess", "the password is not that of the PFX"},
		"PFX and no password":               {pfx(pkcs12.Modern2023, key, "secret"), "", "the PFX has a password; want it, got none"},
		"PFX with the key of another":       {pfx(pkcs12.Modern2023, other, "secret"), "secret", "the private key is not that of the certificate of CN=chat.example"},
		"PFX with a small key":              {pfx(pkcs12.Modern2023, small, "secret"), "secret", "want an RSA key of at least 2048 bits, got 1024"},
		"PEM with the key of another":       {caPEM + keyPEM, "", "the private key is not that of the certificate of CN=CA"},
		"PEM without a key":                 {leafPEM, "", "want a private key in the PEM, got none"},
		"PEM without a certificate":         {keyPEM, "", "want a certificate in the PEM, got none"},
		"PEM with two keys":                 {leafPEM + keyPEM + keyPEM, "", "want one private key in the PEM, got a second"},
		"PEM with an encrypted key":         {leafPEM + pemOf("ENCRYPTED PRIVATE KEY", pkcs8), "secret", "the private key of the PEM is encrypted"},
		"PEM with a password":               {leafPEM + keyPEM, "secret", "want no password for PEM, got one"},
		"PEM with a damaged certificate":    {pemOf("CERTIFICATE", leaf.Raw[:50]) + keyPEM, "", "certificate 1 of the PEM"},
		"nothing":                           {"", "", "want a PFX with one private key"},
		"bytes that are neither":            {"\x30\x82\x01\x00hello", "", "want a PFX with one private key"},
		"PEM with a key that is none of it": {leafPEM + pemOf("PRIVATE KEY", []byte("x")), "", "private key of the PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			up, err := pki.ReadUpload([]byte(test.file), test.password)
			if test.want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(up.Chain, []byte(up.Key))
			if err != nil || len(pair.Certificate) != 2 || !bytes.Equal(pair.Certificate[0], leaf.Raw) || !bytes.Equal(pair.Certificate[1], ca.Raw) || !up.Leaf.Equal(leaf) {
				t.Errorf("got %d certificates, %v, want the leaf and its CA", len(pair.Certificate), err)
			}
		})
	}
}

func FuzzReadUpload(f *testing.F) {
	key := ecKey(f)
	cert := sign(f, "chat.example", key, nil, nil)
	file, err := pkcs12.Modern2023.WithIterations(1).Encode(key, cert, nil, "")
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(pemOf("CERTIFICATE", cert.Raw) + pemOf("PRIVATE KEY", der)))
	f.Add(file)
	f.Fuzz(func(t *testing.T, file []byte) {
		up, err := pki.ReadUpload(file, "")
		if err != nil {
			return
		}
		if _, err := tls.X509KeyPair(up.Chain, []byte(up.Key)); err != nil {
			t.Errorf("what was taken cannot be used: %v", err)
		}
	})
}
