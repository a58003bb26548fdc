package autoscale

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/resource"
)

// resolved is a rule whose secrets and variables have been looked up. Names and meaning are KEDA's
// (github.com/kedacore/keda, pkg/scalers/external_scaler.go).
type resolved struct {
	address             string
	metadata            map[string]string
	enableTLS           bool
	unsafe              bool // any certificate of the scaler is accepted
	ca, clientCert, key string
}

// resolve looks up the secrets and variables of the rule.
func (s *source) resolve(ctx context.Context) (resolved, error) {
	c := s.rule.Custom
	out := resolved{address: c.Metadata[resource.ScalerAddress], metadata: map[string]string{}}
	var secrets map[string]resource.Secret
	secret := func(name string) (string, error) {
		if secrets == nil {
			var err error
			if secrets, err = s.cfg.Secrets(ctx, s.owner); err != nil {
				return "", err
			}
		}
		value, ok := secrets[name]
		if !ok {
			return "", fmt.Errorf("secret %q of %s does not exist any more", name, s.owner.Base())
		}
		return value.Reveal(), nil
	}
	for key, value := range c.Metadata {
		if !strings.HasSuffix(key, resource.FromEnv) {
			out.metadata[key] = value
			continue
		}
		i := slices.IndexFunc(s.env, func(v resource.EnvVar) bool { return v.Name == value })
		if i < 0 {
			continue // as in KEDA
		}
		value = s.env[i].Value
		if ref := s.env[i].SecretRef; ref != "" {
			var err error
			if value, err = secret(ref); err != nil {
				return out, err
			}
		}
		if value != "" {
			out.metadata[key] = value
		}
	}
	out.enableTLS, _ = strconv.ParseBool(c.Metadata["enableTLS"])
	out.unsafe, _ = strconv.ParseBool(c.Metadata["unsafeSsl"])
	for _, a := range c.Auth {
		value, err := secret(a.SecretRef)
		if err != nil {
			return out, err
		}
		switch a.TriggerParameter {
		case "caCert":
			out.ca = value
		case "tlsClientCert":
			out.clientCert = value
		case "tlsClientKey":
			out.key = value
		}
	}
	return out, nil
}

// tls returns how the connection is secured, or nil if it is not. As in KEDA, a certificate turns it on.
func (r resolved) tls(roots *x509.CertPool) (*tls.Config, error) {
	if !r.enableTLS && r.ca == "" && r.clientCert == "" && r.key == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: r.unsafe}
	if r.ca != "" {
		if roots == nil {
			roots = x509.NewCertPool()
		}
		c.RootCAs = roots.Clone()
		if !c.RootCAs.AppendCertsFromPEM([]byte(r.ca)) {
			return nil, errors.New("auth parameter caCert: want certificates in PEM, got something else")
		}
	}
	if r.clientCert != "" || r.key != "" {
		pair, err := tls.X509KeyPair([]byte(r.clientCert), []byte(r.key))
		if err != nil {
			return nil, fmt.Errorf("auth parameters tlsClientCert and tlsClientKey: want a certificate and its key in PEM: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
