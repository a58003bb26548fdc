package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// authorityView is the certificate of the authority that signs the server's certificates.
type authorityView struct {
	File        string    `json:"file"`
	SHA256      string    `json:"sha256"`
	Expires     time.Time `json:"expires"`
	Certificate string    `json:"certificate"` // PEM
}

func newCACmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate that clients must trust to use the server over https",
		Long: `Print the certificate of the server's certificate authority (PEM). It signs the certificates of all apps' host names and
of the management API. Clients that trust it can use both over https; it is no secret. No server needs to run.

curl takes it with --cacert, Python's requests in REQUESTS_CA_BUNDLE, other Python programs and OpenSSL in SSL_CERT_FILE,
Node.js in NODE_EXTRA_CA_CERTS. For all programs of a Debian machine, put it into /usr/local/share/ca-certificates as
penstock.crt and run update-ca-certificates. docs/https.md has it all.`,
		Example: "  penstock ca > ca.pem\n  curl --cacert ca.pem https://chat.penstock.localhost:8443/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := env.authority(cmd)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "%s, expires %s, SHA-256 %s\n", v.File, v.Expires.Format(time.DateOnly), v.SHA256)
			return env.show(v, func(w io.Writer) { fmt.Fprint(w, v.Certificate) })
		},
	}
}

// authority reads the certificate of the server that commands reach.
func (e *Env) authority(cmd *cobra.Command) (v authorityView, err error) {
	if endpoint := e.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		if v.File = e.Getenv("PENSTOCK_CA"); v.File == "" {
			return v, hint(errors.New("PENSTOCK_ENDPOINT is set but PENSTOCK_CA is not, so this machine does not have the server's certificate"),
				"penstock ca > ca.pem on the server's machine")
		}
	} else {
		s, err := e.settings(cmd)
		if err != nil {
			return v, err
		}
		v.File = filepath.Join(s.Data, "pki", "ca.pem")
	}
	content, err := os.ReadFile(v.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v, hint(fmt.Errorf("certificate authority: %w", err), "penstock up, whose first start makes it\nor choose another data folder with --data or PENSTOCK_DATA")
	case errors.Is(err, fs.ErrPermission):
		return v, hint(fmt.Errorf("certificate authority: %w", err), "the same command with sudo")
	case err != nil:
		return v, fmt.Errorf("certificate authority: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return v, fmt.Errorf("certificate authority: want a certificate (PEM) in %s, found none", v.File)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return v, fmt.Errorf("certificate authority: %s: %w", v.File, err)
	}
	sum := sha256.Sum256(cert.Raw)
	v.SHA256 = strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":") // as openssl x509 -fingerprint prints it
	v.Expires = cert.NotAfter
	v.Certificate = strings.TrimRight(string(content), "\n") + "\n"
	return v, nil
}
