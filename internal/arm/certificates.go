package arm

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/pki"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func certificateKind() kind[resource.Certificate] {
	return kind[resource.Certificate]{
		resourceType: resource.TypeCertificate, vars: []string{"environment", "certificate"}, noun: "certificate", code: "Certificate",
		table:  func(s *store.Store) documents[resource.Certificate] { return s.Certificates() },
		meta:   func(v *resource.Certificate) *resource.Meta { return &v.Meta },
		parent: func(c *call) error { _, err := environmentKind().find(c); return err },
		read:   readCertificate,
		change: changeCertificate,
		changed: func(c *call, _, now resource.Certificate) {
			// The ingress gets the new certificate with the next table.
			c.Reconcile(now.ID.Parent())
		},
		removable: func(c *call, v resource.Certificate) error {
			used, err := c.usedBy(c.r.Context(), v.ID)
			if err != nil || used == nil {
				return err
			}
			return refuse(http.StatusConflict, "CertificateInUse",
				"The certificate '%s' cannot be deleted: the container app '%s' uses it for '%s'; change its customDomains first.", v.ID.Base(), used.app, used.domain)
		},
		answer: func(_ *call, v resource.Certificate) (any, error) { return app.NewCertificate(v, time.Now()), nil },
		put:    http.StatusOK, patch: http.StatusOK,
	}
}

// readCertificate reads the body of a PUT and the certificate in it. Without a file the stored certificate stays.
func readCertificate(id resource.ID, body []byte) (resource.Certificate, []string, error) {
	wanted, notes, err := app.ReadCertificate(id, body)
	if err != nil || wanted.Value == "" {
		return wanted, notes, err
	}
	bad := func(format string, args ...any) (resource.Certificate, []string, error) {
		return wanted, nil, &resource.InvalidError{Faults: []resource.Fault{{
			Code: resource.CodeCertificate, Field: "properties.value", Message: fmt.Sprintf(format, args...),
		}}}
	}
	file, err := base64.StdEncoding.DecodeString(wanted.Value.Reveal())
	if err != nil {
		return bad("want a PFX or PEM file in base64") // does not show what was found, because it could be a key
	}
	up, err := pki.ReadUpload(file, wanted.Password.Reveal())
	if err != nil {
		return bad("%v", err)
	}
	leaf := up.Leaf
	if time.Now().After(leaf.NotAfter) {
		return bad("the certificate of %s expired on %s", leaf.Subject, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	sum, public := sha1.Sum(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	wanted.Key, wanted.Chain = resource.Secret(up.Key), up.Chain
	wanted.Subject, wanted.Issuer, wanted.Names = leaf.Subject.String(), leaf.Issuer.String(), leaf.DNSNames
	wanted.Thumbprint, wanted.PublicKeyHash = strings.ToUpper(hex.EncodeToString(sum[:])), hex.EncodeToString(public[:])
	wanted.NotBefore, wanted.NotAfter = leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
	return wanted, notes, nil
}

func changeCertificate(c *call, v *resource.Certificate, exists bool, wanted *resource.Certificate) error {
	environment, err := environmentKind().find(c)
	if err != nil {
		return err
	}
	if !environment.Deleted.IsZero() {
		return environmentKind().writable(environment)
	}
	if wanted.Key == "" {
		if exists {
			return nil
		}
		return &resource.InvalidError{Faults: []resource.Fault{{Code: resource.CodeCertificate, Field: "properties.value", Message: "want a PFX or PEM file in base64, got none"}}}
	}
	was := *v
	if wanted.Location == "" {
		wanted.Location = environment.Location
	}
	*v = *wanted
	v.Meta, v.Sealed = was.Meta, c.Secrets.Seal(wanted.Purpose(), wanted.Key.Reveal())
	v.Key, v.Value, v.Password = "", "", ""
	if !exists {
		return nil
	}
	// The apps that use it must be able to use the new one.
	used, err := c.users(c.r.Context(), was.ID)
	if err != nil {
		return err
	}
	for _, u := range used {
		if !v.Covers(u.domain) {
			return refuse(http.StatusConflict, "CertificateInUse",
				"The container app '%s' uses the certificate '%s' for '%s', for which the new one is not valid; it is valid for %s.", u.app, was.ID.Base(), u.domain, strings.Join(v.Names, ", "))
		}
	}
	return nil
}

// use is a custom domain of an app that has a certificate.
type use struct{ app, domain string }

func (c *call) users(ctx context.Context, certificate resource.ID) (all []use, err error) {
	apps, err := c.appsIn(ctx, certificate.Parent())
	for _, a := range apps {
		if a.Configuration.Ingress == nil {
			continue
		}
		for _, d := range a.Configuration.Ingress.Domains {
			if d.Certificate.Key() == certificate.Key() {
				all = append(all, use{a.ID.Base(), d.Name})
			}
		}
	}
	return all, err
}

func (c *call) usedBy(ctx context.Context, certificate resource.ID) (*use, error) {
	all, err := c.users(ctx, certificate)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// checkDomains refuses domains that another app has, and certificates that are not valid for their domain. No other write
// happens meanwhile.
func (c *call) checkDomains(ctx context.Context, environment resource.Environment, wanted resource.App) error {
	in := wanted.Configuration.Ingress
	if in == nil || len(in.Domains) == 0 {
		return nil
	}
	var faults []resource.Fault
	fault := func(code string, i int, field, format string, args ...any) {
		faults = append(faults, resource.Fault{Code: code, Field: fmt.Sprintf("configuration.ingress.customDomains[%d].%s", i, field), Message: fmt.Sprintf(format, args...)})
	}
	taken, err := c.domainsBut(ctx, wanted.ID)
	if err != nil {
		return err
	}
	environments, err := c.Store.Environments().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	for i, d := range in.Domains {
		if owner := taken[d.Name]; !owner.IsZero() {
			fault("ContainerAppCustomDomainInUse", i, "name", "%q is already a domain of the container app '%s'", d.Name, owner.Base())
		}
		for _, e := range environments {
			if domain := strings.ToLower(e.DefaultDomain); domain != "" && (d.Name == domain || strings.HasSuffix(d.Name, "."+domain)) {
				fault("ContainerAppInvalidValue", i, "name", "want a domain of your own, got one below %s, which is the environment's", domain)
			}
		}
		if d.Certificate.IsZero() {
			continue
		}
		found, err := c.Store.Certificates().Get(ctx, d.Certificate)
		switch {
		case errors.Is(err, resource.ErrNotFound), err == nil && found.ID.Parent().Key() != environment.ID.Key():
			fault("ContainerAppInvalidValue", i, "certificateId", "want a certificate of the environment '%s'; there is no '%s' in it", environment.ID.Base(), d.Certificate.Base())
		case err != nil:
			return err
		case !found.Covers(d.Name):
			fault("ContainerAppInvalidValue", i, "certificateId", "the certificate '%s' is not valid for %q; it is valid for %s", found.ID.Base(), d.Name, strings.Join(found.Names, ", "))
		}
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	return nil
}

// domainsBut returns the custom domains of all apps but one, with the IDs of the apps.
func (c *call) domainsBut(ctx context.Context, but resource.ID) (map[string]resource.ID, error) {
	all, err := c.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	taken := map[string]resource.ID{}
	for _, a := range all {
		if a.Configuration.Ingress == nil || a.ID.Key() == but.Key() {
			continue
		}
		for _, d := range a.Configuration.Ingress.Domains {
			taken[d.Name] = a.ID
		}
	}
	return taken, nil
}
