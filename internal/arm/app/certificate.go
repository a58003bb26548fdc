package app

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/internal/resource"
)

// Certificate is Microsoft.App/managedEnvironments/certificates. Answers never contain its value or password.
type Certificate struct {
	Tracked
	Properties CertificateProperties `json:"properties"`
}

// CertificateProperties has the properties of a certificate.
type CertificateProperties struct {
	ProvisioningState       string   `json:"provisioningState" arm:"ro"`
	Value                   *string  `json:"value,omitempty" arm:"hidden"`
	Password                *string  `json:"password,omitempty" arm:"hidden"`
	SubjectName             string   `json:"subjectName" arm:"ro"`
	SubjectAlternativeNames []string `json:"subjectAlternativeNames" arm:"ro"`
	Issuer                  string   `json:"issuer" arm:"ro"`
	IssueDate               *Time    `json:"issueDate" arm:"ro"`
	ExpirationDate          *Time    `json:"expirationDate" arm:"ro"`
	Thumbprint              string   `json:"thumbprint" arm:"ro"`
	Valid                   bool     `json:"valid" arm:"ro"`
	PublicKeyHash           string   `json:"publicKeyHash" arm:"ro"`
	CertificateType         *string  `json:"certificateType,omitempty"`
	DeploymentErrors        *string  `json:"deploymentErrors,omitempty" arm:"ro"`
}

func certificateFields() []Field {
	fields := []Field{
		refused("properties.certificateKeyVaultProperties", "Key Vault is not supported"),
		refused("properties.certificateType", "images are pulled without certificates of an environment").unless("ServerSSLCertificate", words("ServerSSLCertificate")),
	}
	for i := range fields {
		fields[i].Type = resource.TypeCertificate
	}
	return fields
}

// ReadCertificate reads the body of a PUT. It does not parse the certificate in Value.
func ReadCertificate(id resource.ID, body []byte) (c resource.Certificate, notes []string, err error) {
	var w Certificate
	r, ok := decodeBody(body, certificateFields(), resource.CodeCertificate, &w)
	if !ok {
		return c, nil, r.err()
	}
	c.Meta = r.tracked(id, w.Tracked)
	c.Value, c.Password = resource.Secret(or(w.Properties.Value, "")), resource.Secret(or(w.Properties.Password, ""))
	if f := resource.ValidateCertificateName(id.Base()); f != nil {
		r.add(*f)
	}
	if n := len(c.Value); n > resource.MaxCertificate {
		r.add(resource.Fault{Code: resource.CodeCertificate, Field: "properties.value", Message: fmt.Sprintf("want at most %d characters of base64, got %d", resource.MaxCertificate, n)})
	}
	if c.Value == "" && c.Password != "" {
		r.add(resource.Fault{Code: resource.CodeCertificate, Field: "properties.value", Message: "want the certificate that the password is for, got none"})
	}
	r.add(resource.ValidateTags(c.Tags)...)
	return c, r.notes, r.err()
}

// NewCertificate returns the JSON of a certificate at the time now.
func NewCertificate(c resource.Certificate, now time.Time) Certificate {
	return Certificate{
		Tracked: newTracked(c.Meta),
		Properties: CertificateProperties{
			ProvisioningState: "Succeeded", SubjectName: c.Subject, SubjectAlternativeNames: slices.Clone(c.Names), Issuer: c.Issuer,
			IssueDate: &Time{c.NotBefore}, ExpirationDate: &Time{c.NotAfter}, Thumbprint: c.Thumbprint, PublicKeyHash: c.PublicKeyHash,
			Valid: !now.Before(c.NotBefore) && now.Before(c.NotAfter),
		},
	}
}

// CustomDomainOfApp is a custom host name of an app.
type CustomDomainOfApp struct {
	Name          *string `json:"name"`
	BindingType   *string `json:"bindingType"`
	CertificateID *string `json:"certificateId,omitempty"`
}

// domains converts the custom domains of an app.
func (r *reader) domains(in []CustomDomainOfApp) (domains []resource.CustomDomain) {
	for i, w := range in {
		at := fmt.Sprintf("configuration.ingress.customDomains[%d]", i)
		bad := func(field, format string, args ...any) {
			r.add(resource.Fault{Code: codeValue, Field: at + field, Message: fmt.Sprintf(format, args...)})
		}
		d := resource.CustomDomain{Name: strings.ToLower(or(w.Name, ""))}
		certificate := or(w.CertificateID, "")
		switch binding := enum(r, at+".bindingType", w.BindingType, "Disabled", "Disabled", "SniEnabled", "Auto"); {
		case binding == "Auto":
			r.add(resource.Fault{Code: resource.CodeNotBuilt, Field: at + ".bindingType", Message: `not built: certificates for custom domains are not issued automatically; want SniEnabled with the certificateId of one that was uploaded, or Disabled, got "Auto"`})
		case binding == "SniEnabled" && certificate == "":
			bad(".certificateId", "want the ID of a certificate of the environment for bindingType SniEnabled, got none")
		case binding == "SniEnabled":
			id, err := resource.ParseID(certificate)
			switch {
			case err == nil && id.Is(resource.TypeEnvironment+"/managedCertificates"):
				r.add(resource.Fault{Code: resource.CodeNotBuilt, Field: at + ".certificateId", Message: "not built: certificates for custom domains are not issued automatically; want the ID of one that was uploaded"})
			case err != nil:
				bad(".certificateId", "%v", err)
			case !id.Is(resource.TypeCertificate):
				bad(".certificateId", "want the ID of a certificate, got that of %s", id.Type)
			}
			d.Certificate = id
		}
		domains = append(domains, d)
	}
	return domains
}

func newDomains(domains []resource.CustomDomain) (all []CustomDomainOfApp) {
	for _, d := range domains {
		w := CustomDomainOfApp{Name: &d.Name, BindingType: new("Disabled")}
		if !d.Certificate.IsZero() {
			w.BindingType, w.CertificateID = new("SniEnabled"), new(d.Certificate.String())
		}
		all = append(all, w)
	}
	return all
}
