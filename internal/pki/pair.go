package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// pair is a certificate with its private key.
type pair struct {
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

func parsePair(certPEM, keyPEM []byte) (pair, error) {
	both, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pair{}, fmt.Errorf("certificate or key is damaged: %w", err)
	}
	key, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return pair{}, fmt.Errorf("want an ECDSA key, found %T", both.PrivateKey)
	}
	return pair{both.Leaf, key}, nil
}

// sign creates a key and its certificate, signed by parent, or self-signed if parent is nil.
func sign(template, parent *x509.Certificate, authority *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, authority = template, key
	}
	// x509 gives a template without a serial number a random one.
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, authority)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return certPEM, keyPEM, nil
}

// splitLeaf splits a leaf file into key and certificate. The key comes first.
func splitLeaf(content []byte) (certPEM, keyPEM []byte) {
	at := bytes.Index(content, []byte("-----BEGIN CERTIFICATE-----"))
	if at < 0 {
		return nil, content
	}
	return content[at:], content[:at]
}
