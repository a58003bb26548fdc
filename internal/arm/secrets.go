package arm

import (
	"fmt"
	"net/http"
	"slices"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// listSecrets is the one answer that tells secret values.
func listSecrets(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	var value []app.Secret
	for _, s := range found.Configuration.Secrets {
		plain, err := c.Secrets.Open(s.Purpose(found.ID), s.Sealed)
		if err != nil {
			return fmt.Errorf("secret %q of app %s: %w", s.Name, found.ID.Base(), err)
		}
		value = append(value, app.Secret{Name: &s.Name, Value: &plain})
	}
	c.w.Header().Set("Cache-Control", "no-store")
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

// seal returns the secrets of an app as they are kept. One that comes without a value, as it is answered, keeps the one
// that it has.
func (c *call) seal(was, wanted resource.App) ([]resource.AppSecret, error) {
	var kept []resource.AppSecret
	var faults []resource.Fault
	for i, s := range wanted.Configuration.Secrets {
		if s.Value != "" {
			s.Sealed = c.Secrets.Seal(s.Purpose(wanted.ID), s.Value.Reveal())
		} else if at := slices.IndexFunc(was.Configuration.Secrets, func(old resource.AppSecret) bool { return old.Name == s.Name }); at >= 0 {
			s.Sealed = was.Configuration.Secrets[at].Sealed
		} else {
			faults = append(faults, resource.Fault{
				Code: "ContainerAppSecretInvalid", Field: fmt.Sprintf("configuration.secrets[%d].value", i),
				Message: fmt.Sprintf("Container app secret(s) with name(s) '%s' are invalid: value or keyVaultUrl and identity should be provided.", s.Name),
			})
		}
		s.Value = ""
		kept = append(kept, s)
	}
	if len(faults) > 0 {
		return nil, &resource.InvalidError{Faults: faults}
	}
	return kept, nil
}
