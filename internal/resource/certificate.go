package resource

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Certificate is a TLS certificate that the apps of an environment can use for custom domains.
type Certificate struct {
	Meta
	// Value and Password are what a user sent: PFX or PEM, in base64. They are not stored.
	Value    Secret `json:"-"`
	Password Secret `json:"-"`
	// Key is the private key as PEM until it is sealed. Sealed is stored instead of it.
	Key    Secret `json:"-"`
	Sealed []byte

	Chain         []byte // PEM, the certificate itself first
	Subject       string
	Issuer        string
	Thumbprint    string // SHA-1 of the certificate, upper-case hexadecimal
	PublicKeyHash string
	Names         []string // host names that it is valid for
	NotBefore     time.Time
	NotAfter      time.Time
}

// Purpose is the purpose for which the private key is sealed. The key cannot be opened for any other purpose.
func (c Certificate) Purpose() string { return c.ID.Key() + "/key" }

// Covers says whether the certificate is valid for a host name.
func (c Certificate) Covers(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	for _, name := range c.Names {
		name = strings.ToLower(name)
		if wild, ok := strings.CutPrefix(name, "*."); name == host || ok && wild == parent {
			return true
		}
	}
	return false
}

// CustomDomain is a host name of an app that is not below the domain of its environment.
type CustomDomain struct {
	Name string // lower case
	// Certificate is what TLS clients of that name get. The zero ID means that the name has no TLS.
	Certificate ID `json:",omitzero"`
}

// CodeCertificate is the error code of certificates that cannot be used.
const CodeCertificate = "CertificateInvalid"

// MaxCertificate bounds the size of an upload. It is enough for some hundred certificates.
const MaxCertificate = 256 << 10

var certificateName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)

// ValidateCertificateName checks the name of a certificate.
func ValidateCertificateName(name string) *Fault {
	if !certificateName.MatchString(name) {
		return &Fault{CodeCertificate, "name", fmt.Sprintf(
			"invalid certificate name %q: want 1 to 63 letters, digits and any of '-._', starting and ending with a letter or digit", name)}
	}
	return nil
}

var domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

func validateDomains(domains []CustomDomain, bad func(at, format string, args ...any)) {
	seen := map[string]bool{}
	for i, d := range domains {
		at := fmt.Sprintf(".customDomains[%d].name", i)
		if len(d.Name) > 253 || !domainName.MatchString(d.Name) {
			bad(at, "want a host name such as chat.example.com, got %q", d.Name)
		}
		if seen[d.Name] {
			bad(at, "%q is given twice", d.Name)
		}
		seen[d.Name] = true
	}
}
