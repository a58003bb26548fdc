package arm

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

func listSecrets(c *call) error {
	found, err := c.app()
	if err != nil {
		return err
	}
	return c.tellSecrets(found.ID, found.Configuration.Secrets)
}

// tellSecrets is the only answer that contains secret values.
func (c *call) tellSecrets(owner resource.ID, secrets []resource.AppSecret) error {
	var value []app.Secret
	for _, s := range secrets {
		plain, err := c.Secrets.Open(s.Purpose(owner), s.Sealed)
		if err != nil {
			return fmt.Errorf("secret %q of %s: %w", s.Name, owner.Base(), err)
		}
		value = append(value, app.Secret{Name: &s.Name, Value: &plain})
	}
	c.w.Header().Set("Cache-Control", "no-store")
	c.answer(http.StatusOK, pageOf(value))
	return nil
}

// seal returns the secrets of an app or a job in the form in which they are stored. A secret without a value, which is how
// a GET returns it, keeps its stored value. t is the template that uses them.
func (c *call) seal(owner resource.ID, was, wanted []resource.AppSecret, t resource.Template) ([]resource.AppSecret, error) {
	var kept []resource.AppSecret
	var faults []resource.Fault
	for i, s := range wanted {
		if s.Value != "" {
			s.Sealed = c.Secrets.Seal(s.Purpose(owner), s.Value.Reveal())
		} else if at := slices.IndexFunc(was, func(old resource.AppSecret) bool { return old.Name == s.Name }); at >= 0 {
			s.Sealed = was[at].Sealed
		} else {
			faults = append(faults, resource.Fault{
				Code: "ContainerAppSecretInvalid", Field: fmt.Sprintf("configuration.secrets[%d].value", i),
				Message: fmt.Sprintf("Container app secret(s) with name(s) '%s' are invalid: value or keyVaultUrl and identity should be provided.", s.Name),
			})
		}
		s.Value = ""
		kept = append(kept, s)
	}
	faults = append(faults, resource.ValidateSecretSizes(t, func(name string) int {
		at := slices.IndexFunc(kept, func(s resource.AppSecret) bool { return s.Name == name })
		if at < 0 || len(kept[at].Sealed) <= resource.MaxText/2 {
			return 0 // it is short, or a fault already; none needs to be opened
		}
		value, err := c.Secrets.Open(kept[at].Purpose(owner), kept[at].Sealed)
		if err != nil {
			return 0 // the start of the replica reports it
		}
		return len(value)
	})...)
	if len(faults) > 0 {
		return nil, &resource.InvalidError{Faults: faults}
	}
	return kept, nil
}

// tellChangedSecrets writes a warning event if running replicas have old values of secrets in their environment variables. A
// new template brings new replicas, and volumes follow by themselves.
func (c *call) tellChangedSecrets(was, now resource.App) {
	if was.Generation == 0 || now.Stopped || !was.Template.Equal(now.Template) {
		return
	}
	var names []string
	for _, s := range now.Configuration.Secrets {
		at := slices.IndexFunc(was.Configuration.Secrets, func(old resource.AppSecret) bool { return old.Name == s.Name })
		if at < 0 || !now.Template.SecretInEnv(s.Name) {
			continue
		}
		before, err1 := c.Secrets.Open(was.Configuration.Secrets[at].Purpose(was.ID), was.Configuration.Secrets[at].Sealed)
		after, err2 := c.Secrets.Open(s.Purpose(now.ID), s.Sealed)
		if err1 != nil || err2 != nil || before != after {
			names = append(names, "'"+s.Name+"'")
		}
	}
	if len(names) == 0 {
		return
	}
	what := "The secret " + names[0] + " has a new value"
	if len(names) > 1 {
		what = "The secrets " + strings.Join(names, ", ") + " have new values"
	}
	restart := "penstock app restart " + now.ID.Base()
	if !strings.EqualFold(now.ID.Group, "default") {
		restart += " -g " + now.ID.Group
	}
	c.System.Append(resource.Event{
		At: time.Now().UTC(), Warning: true, App: now.ID, Reason: "SecretsChanged", Source: "ContainerAppController",
		Message: what + ". Running replicas keep what they were started with; this gives them the new: " + restart,
	})
}
