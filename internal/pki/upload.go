package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// Upload is a certificate uploaded by a user, with its key.
type Upload struct {
	Leaf  *x509.Certificate
	Chain []byte // PEM, the leaf first
	Key   string // PEM of PKCS #8
}

// minRSA is the smallest RSA key size that browsers and Go's clients accept.
const minRSA = 2048

// ReadUpload parses a PFX (PKCS #12) file, or PEM with the certificate, its chain and the key.
func ReadUpload(file []byte, password string) (Upload, error) {
	if bytes.Contains(file, []byte("-----BEGIN ")) {
		return readPEM(file, password)
	}
	key, leaf, chain, err := pkcs12.DecodeChain(file, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
		return Upload{}, errors.New("the PFX has a password; want it, got none")
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return Upload{}, errors.New("the password is not that of the PFX")
	case err != nil:
		return Upload{}, fmt.Errorf("want a PFX with one private key and its certificate, or PEM with both: %w", err)
	}
	return newUpload(key, append([]*x509.Certificate{leaf}, chain...))
}

func readPEM(file []byte, password string) (Upload, error) {
	var key any
	var certs []*x509.Certificate
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return Upload{}, fmt.Errorf("certificate %d of the PEM: %w", len(certs)+1, err)
			}
			certs = append(certs, cert)
		case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
			if key != nil {
				return Upload{}, errors.New("want one private key in the PEM, got a second")
			}
			var err error
			if key, err = parseKey(block); err != nil {
				return Upload{}, err
			}
		case "ENCRYPTED PRIVATE KEY":
			return Upload{}, errors.New("the private key of the PEM is encrypted; want it in the clear, or a PFX with a password")
		}
	}
	switch {
	case key == nil:
		return Upload{}, errors.New("want a private key in the PEM, got none")
	case len(certs) == 0:
		return Upload{}, errors.New("want a certificate in the PEM, got none")
	case password != "":
		return Upload{}, errors.New("want no password for PEM, got one")
	}
	return newUpload(key, certs)
}

func parseKey(block *pem.Block) (key any, err error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, errors.New("the private key of the PEM is encrypted; want it in the clear, or a PFX with a password")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("private key of the PEM: %w", err)
	}
	return key, nil
}

// newUpload puts the certificate that belongs to the key first.
func newUpload(key any, certs []*x509.Certificate) (Upload, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return Upload{}, fmt.Errorf("want an RSA, ECDSA or Ed25519 key, got %T", key)
	}
	if k, ok := key.(*rsa.PrivateKey); ok && k.N.BitLen() < minRSA {
		return Upload{}, fmt.Errorf("want an RSA key of at least %d bits, got %d", minRSA, k.N.BitLen())
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return Upload{}, fmt.Errorf("want an RSA, ECDSA or Ed25519 key, got %T", key)
	}
	var up Upload
	var rest bytes.Buffer
	for _, cert := range certs {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		if up.Leaf == nil && public.Equal(cert.PublicKey) {
			up.Leaf, up.Chain = cert, text
			continue
		}
		rest.Write(text)
	}
	if up.Leaf == nil {
		return Upload{}, fmt.Errorf("the private key is not that of the certificate of %s", certs[0].Subject)
	}
	up.Chain = append(up.Chain, rest.Bytes()...)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Upload{}, fmt.Errorf("private key: %w", err)
	}
	up.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return up, nil
}
