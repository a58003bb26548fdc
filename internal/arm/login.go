package arm

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// The addresses here are the only ones that need no token, because clients ask for them before they have one. They tell
// nothing but the server's own address, and the token only to those who have it already.

// loginRoutes adds them. Clients log in at an authority, which is "adfs" or a tenant. Microsoft's libraries use adfs as it
// is; about any other authority they ask Microsoft first.
func loginRoutes(open func(method, pattern string, handle func(*call) error)) {
	// Terraform adds the tenant to an authority even if it is adfs.
	for _, at := range []string{"{tenant}", "adfs/{tenant}"} {
		open(http.MethodGet, at+"/.well-known/openid-configuration", openidConfiguration)
		open(http.MethodGet, at+"/v2.0/.well-known/openid-configuration", openidConfiguration)
		open(http.MethodPost, at+"/oauth2/token", issueToken)
		open(http.MethodPost, at+"/oauth2/v2.0/token", issueToken)
	}
	open(http.MethodGet, "metadata/endpoints", cloudMetadata)
}

// openid is the part of an OpenID provider's configuration that clients of Azure read.
type openid struct {
	Issuer                 string   `json:"issuer"`
	AuthorizationEndpoint  string   `json:"authorization_endpoint"`
	TokenEndpoint          string   `json:"token_endpoint"`
	AuthMethods            []string `json:"token_endpoint_auth_methods_supported"`
	GrantTypes             []string `json:"grant_types_supported"`
	ResponseTypesSupported []string `json:"response_types_supported"`
}

const clientCredentials = "client_credentials"

func openidConfiguration(c *call) error {
	// The issuer is the authority that was asked. Only names of the path's form come this far, so it is safe to repeat.
	authority := c.endpoint() + strings.TrimSuffix(c.r.URL.EscapedPath(), "/.well-known/openid-configuration")
	token := strings.TrimSuffix(authority, "/v2.0") + "/oauth2/v2.0/token"
	if strings.EqualFold(c.vars["tenant"], "adfs") {
		token = authority + "/oauth2/token"
	}
	c.answer(http.StatusOK, openid{
		Issuer:                 authority,
		AuthorizationEndpoint:  strings.TrimSuffix(token, "token") + "authorize",
		TokenEndpoint:          token,
		AuthMethods:            []string{"client_secret_post", "client_secret_basic"},
		GrantTypes:             []string{clientCredentials},
		ResponseTypesSupported: []string{},
	})
	return nil
}

// tokenLife is what clients are told about how long a token is good for. The server's token is good until it is changed;
// clients ask again after this time.
const tokenLife = 24 * time.Hour

// maxLogin is the largest body of a request for a token. A client's secret and names take some hundred bytes.
const maxLogin = 16 << 10

// issuedToken is OAuth 2.0's answer with a token (RFC 6749, 5.1).
type issuedToken struct {
	TokenType    string `json:"token_type"`
	AccessToken  string `json:"access_token"`
	ExpiresIn    int    `json:"expires_in"`
	ExtExpiresIn int    `json:"ext_expires_in"`
}

// oauthError is OAuth 2.0's answer to a request for a token that is refused (RFC 6749, 5.2).
type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// issueToken answers a client that has the server's token as its secret with that token, to be used as a bearer token.
// The name of the client does not matter.
func issueToken(c *call) error {
	h := c.w.Header()
	h.Set("Cache-Control", "no-store") // RFC 6749, 5.1
	h.Set("Pragma", "no-cache")
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxLogin)
	if err := c.r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			status = http.StatusRequestEntityTooLarge
		}
		c.answer(status, oauthError{"invalid_request", "The request content is not a form that this server can read."})
		return nil
	}
	// Only the body counts: an address with a secret in it would be in the logs of proxies.
	form := c.r.PostForm
	if grant := form.Get("grant_type"); grant != clientCredentials {
		c.answer(http.StatusBadRequest, oauthError{"unsupported_grant_type", "grant_type: want client_credentials; log in as a service principal, as in az login --service-principal."})
		return nil
	}
	secret := form.Get("client_secret")
	if _, password, ok := c.r.BasicAuth(); ok {
		secret = password
	}
	if !equal(secret, c.Token) {
		c.answer(http.StatusUnauthorized, oauthError{"invalid_client", "client_secret: want the server's token, which is in the file token of its data folder."})
		return nil
	}
	c.answer(http.StatusOK, issuedToken{"Bearer", c.Token, int(tokenLife / time.Second), int(tokenLife / time.Second)})
	return nil
}

// cloudEndpoints describes the server as a cloud.
type cloudEndpoints struct {
	Name                     string            `json:"name"`
	Portal                   string            `json:"portal"`
	Authentication           cloudLogin        `json:"authentication"`
	ResourceManager          string            `json:"resourceManager"`
	LogAnalyticsResourceID   string            `json:"logAnalyticsResourceId"`
	MicrosoftGraphResourceID string            `json:"microsoftGraphResourceId"`
	Graph                    string            `json:"graph"`
	GraphAudience            string            `json:"graphAudience"`
	Suffixes                 map[string]string `json:"suffixes"`
}

type cloudLogin struct {
	LoginEndpoint    string   `json:"loginEndpoint"`
	Audiences        []string `json:"audiences"`
	Tenant           string   `json:"tenant"`
	IdentityProvider string   `json:"identityProvider"`
}

// oneCloud is the api-version from which the answer is one cloud; before, it was a list.
const oneCloud = "2022-09-01"

// cloudMetadata answers what az and Terraform ask a cloud that they do not know.
func cloudMetadata(c *call) error {
	if err := checkVersion(c.r.URL.Query()); err != nil {
		return err
	}
	at := c.endpoint()
	cloud := cloudEndpoints{
		Name: "Penstock", Portal: at,
		// az and MSAL ask Microsoft about every authority but one that ends in /adfs.
		Authentication:           cloudLogin{LoginEndpoint: at + "/adfs", Audiences: []string{at}, Tenant: "adfs", IdentityProvider: "ADFS"},
		ResourceManager:          at,
		LogAnalyticsResourceID:   at,
		MicrosoftGraphResourceID: at,
		Graph:                    at,
		GraphAudience:            at,
		Suffixes:                 map[string]string{},
	}
	if c.r.URL.Query().Get("api-version") < oneCloud {
		c.answer(http.StatusOK, []cloudEndpoints{cloud})
		return nil
	}
	c.answer(http.StatusOK, cloud)
	return nil
}
