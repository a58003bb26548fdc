package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

const (
	// tokenLife is how long a token is valid if its issuer does not say, from the distribution project's token
	// authentication specification, "expires_in".
	tokenLife = time.Minute
	// tokenMargin is subtracted, so that no token expires on its way.
	tokenMargin = 10 * time.Second
	// maxToken is the maximum size of a token service's response.
	maxToken = 1 << 20
)

// authority is an Authorization header and how long it is valid.
type authority struct {
	header string
	until  time.Time
}

// prove creates the header that answers a registry's challenges.
func (c *Client) prove(ctx context.Context, at endpoint, asked []challenge, repository string, login Login) (authority, error) {
	for _, ch := range asked {
		if ch.scheme == "bearer" && ch.realm != "" {
			return c.token(ctx, at, ch, repository, login)
		}
	}
	for _, ch := range asked {
		if ch.scheme == "basic" && !login.IsZero() {
			r := &http.Request{Header: http.Header{}}
			r.SetBasicAuth(login.Username, login.password)
			return authority{r.Header.Get("Authorization"), time.Now().Add(time.Hour)}, nil
		}
	}
	return authority{}, nil
}

// token requests a token to read one repository from a registry's token service. It ignores the scope that the registry
// names.
func (c *Client) token(ctx context.Context, at endpoint, ch challenge, repository string, login Login) (authority, error) {
	realm, err := url.Parse(ch.realm)
	if err != nil || realm.Host == "" || realm.User != nil {
		return authority{}, refuse("%s: want the address of a token service in WWW-Authenticate, got %q", at.host, printable(ch.realm))
	}
	if realm.Scheme != "https" && (realm.Scheme != "http" || at.scheme != "http" || realm.Host != at.host) {
		return authority{}, refuse("%s: want a token service over https, got %s://%s", at.host, printable(realm.Scheme), printable(realm.Host))
	}
	if !login.IsZero() && !sameSite(at.host, realm.Host) {
		return authority{}, refuse("%s wants the password for it sent to %s, which is another site; it was not sent", at.host, printable(realm.Host))
	}
	query := realm.Query()
	if ch.service != "" {
		query.Set("service", ch.service)
	}
	query.Set("scope", "repository:"+repository+":pull")
	realm.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return authority{}, refuse("%s: %v", at.host, err)
	}
	if !login.IsZero() {
		req.SetBasicAuth(login.Username, login.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return authority{}, fmt.Errorf("ask for a token: %w", cause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return authority{}, answerError(realm.Host, resp)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxToken)).Decode(&answer); err != nil {
		return authority{}, fmt.Errorf("token of %s: %w", printable(realm.Host), err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" || strings.ContainsFunc(answer.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return authority{}, refuse("%s: want a token, got none", printable(realm.Host))
	}
	life := tokenLife
	if answer.ExpiresIn > 0 {
		life = time.Duration(min(answer.ExpiresIn, 86400)) * time.Second
	}
	return authority{"Bearer " + answer.Token, time.Now().Add(life - min(tokenMargin, life/2))}, nil
}

// sameSite reports whether two hosts belong to one owner: they are equal, or have the same registered domain, like
// registry-1.docker.io and auth.docker.io.
func sameSite(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	one, other := domain(a), domain(b)
	return one != "" && one == other
}

// domain returns the registered domain of a host, or "" if it has none.
func domain(host string) string {
	name := strings.ToLower((&url.URL{Host: host}).Hostname())
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	registered, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return ""
	}
	return registered
}
