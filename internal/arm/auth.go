package arm

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// Authenticate passes requests on to next when they have the token. It can be a bearer token or, for clients such as
// docker login, the password of basic authentication.
func Authenticate(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := bearer(r)
		if _, password, ok := r.BasicAuth(); ok {
			given = password
		}
		if !equal(given, token) {
			w.Header().Set("WWW-Authenticate", `Basic realm="penstock"`)
			const want = "want the server's token: as a bearer token, or as the password of any user"
			if strings.HasPrefix(r.URL.Path, "/v2/") {
				// Clients of registries of the first version look for it, and for the body: OCI distribution specification 1.1,
				// "Legacy Docker support HTTP headers" and "Error Codes".
				w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"` + want + `"}]}`)) // it fails only when the client has left
				return
			}
			http.Error(w, want, http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// equal compares tokens. It takes the same time for wrong tokens as for the right one.
func equal(given, want string) bool {
	g, w := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(g[:], w[:]) == 1
}

func (c *call) authorized(found route, vars map[string]string) bool {
	given := bearer(c.r)
	if found.open || equal(given, c.Token) {
		return true
	}
	if !found.stream {
		return false
	}
	return c.validStreamToken(given, streamOwner(vars), time.Now())
}

// streamOwner returns the app, job or environment whose streams an address is for.
func streamOwner(vars map[string]string) resource.ID {
	if job, ok := vars["job"]; ok {
		return resource.JobID(vars["subscription"], vars["group"], job)
	}
	if app, ok := vars["app"]; ok {
		return resource.AppID(vars["subscription"], vars["group"], app)
	}
	return resource.EnvironmentID(vars["subscription"], vars["group"], vars["environment"])
}

// source returns the app, job or environment that a request names.
func (c *call) source() (resource.Meta, error) {
	if _, ok := c.vars["job"]; ok {
		found, err := c.job()
		return found.Meta, err
	}
	if _, ok := c.vars["app"]; ok {
		found, err := c.app()
		return found.Meta, err
	}
	found, err := environmentKind().find(c)
	return found.Meta, err
}

func (c *call) unauthorized() error {
	c.w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization_uri="%s", error="invalid_token"`, c.endpoint()))
	if c.r.Header.Get("Authorization") == "" {
		return refuse(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing; want Bearer and the server's token.")
	}
	return refuse(http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is invalid; want the server's token.")
}

// streamTokenLife is how long a token can be used to open a stream.
const streamTokenLife = time.Hour

// streamToken returns a token that opens the streams of one app, job or environment until it expires:
// "<Unix seconds>.<signature>".
func (a *api) streamToken(id resource.ID, expires time.Time) string {
	at := strconv.FormatInt(expires.Unix(), 10)
	mac := hmac.New(sha256.New, a.streamKey[:])
	_, _ = fmt.Fprintf(mac, "%s\n%s", at, id.Key()) // a hash never fails
	return at + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (a *api) validStreamToken(token string, id resource.ID, now time.Time) bool {
	at, _, _ := strings.Cut(token, ".")
	expires, err := strconv.ParseInt(at, 10, 64)
	return err == nil && now.Unix() < expires && equal(token, a.streamToken(id, time.Unix(expires, 0)))
}

// authToken is the answer to getAuthtoken.
type authToken struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	Type       string              `json:"type"`
	Location   string              `json:"location"`
	Properties authTokenProperties `json:"properties"`
}

type authTokenProperties struct {
	Token             string   `json:"token"`
	Expires           app.Time `json:"expires"`
	LogStreamEndpoint string   `json:"logStreamEndpoint,omitempty"`
}

func getAuthToken(c *call) error {
	of, err := c.source()
	if err != nil {
		return err
	}
	expires := time.Now().Add(streamTokenLife).Truncate(time.Second)
	token := authToken{
		ID:         of.ID.String(),
		Name:       of.ID.Base(),
		Type:       of.ID.Type + "/accesstoken",
		Location:   of.Location,
		Properties: authTokenProperties{Token: c.streamToken(of.ID, expires), Expires: app.Time{Time: expires}},
	}
	if !of.ID.Is(resource.TypeEnvironment) {
		token.Properties.LogStreamEndpoint = c.endpoint()
	}
	c.answer(http.StatusOK, token)
	return nil
}
