package arm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"penstock/internal/logs"
	"penstock/internal/resource"
	"penstock/internal/seal"
)

// upload is the body of a certificate for names that ends then, in PEM.
func upload(t testing.TB, ends time.Duration, names ...string) (body, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(ends)}
	template.Subject.CommonName = names[0]
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), key...)
	text, err := json.Marshal(map[string]any{"location": "koreacentral", "properties": map[string]any{"value": file, "password": ""}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text), key
}

const certificates = base + "/managedEnvironments/e/certificates"

// withDomains is the app with those custom domains in JSON.
func withDomains(domains string) string {
	return chat(func(properties, _, _ map[string]any) {
		properties["configuration"].(map[string]any)["ingress"].(map[string]any)["customDomains"] = json.RawMessage(domains)
	})
}

func TestCertificates(t *testing.T) {
	s := start(t)
	s.environment("e")
	body, key := upload(t, time.Hour, "chat.example.com", "*.models.example.com")
	a := s.want(200, "PUT", certificates+"/site"+version, body)
	for path, want := range map[string]any{"subjectName": "CN=chat.example.com", "provisioningState": "Succeeded", "valid": true} {
		if got := a.get(t, "properties", path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	if got := fmt.Sprint(a.get(t, "properties", "subjectAlternativeNames"), len(a.get(t, "properties", "thumbprint").(string)), a.get(t, "type")); got != "[chat.example.com *.models.example.com] 40Microsoft.App/managedEnvironments/certificates" {
		t.Errorf("got %s", got)
	}

	// Its key is nowhere to be read, and opens for who needs it.
	list := s.want(200, "GET", certificates+version, "")
	kept, err := s.store.Certificates().Get(t.Context(), resource.EnvironmentID(subscription, "ml", "e").Child("certificates", "site"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(key, "\n")[1]
	for name, text := range map[string][]byte{"the answer": a.body, "the list": list.body, "the store": document} {
		if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(secret)))) || bytes.Contains(text, []byte("password")) {
			t.Errorf("%s has the key or says password: %s", name, text)
		}
	}
	box, err := seal.New(make([]byte, 32)) // as the server has it
	if err != nil {
		t.Fatal(err)
	}
	opened, err := box.Open(kept.Purpose(), kept.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(kept.Chain, []byte(opened)); err != nil {
		t.Error(err)
	}

	for ask, want := range map[string]string{
		`{"name":"site","type":"Microsoft.App/managedEnvironments/certificates"}`: "false AlreadyExists",
		`{"name":"free","type":"Microsoft.App/managedEnvironments/certificates"}`: "true <nil>",
	} {
		a := s.want(200, "POST", base+"/managedEnvironments/e/checkNameAvailability"+version, ask)
		if got := fmt.Sprint(a.get(t, "nameAvailable"), " ", a.get(t, "reason")); got != want {
			t.Errorf("%s: got %s, want %s", ask, got, want)
		}
	}
	s.want(400, "POST", base+"/managedEnvironments/e/checkNameAvailability"+version, `{"name":"x","type":"Microsoft.App/other"}`)

	// A PATCH is of the tags; the certificate stays.
	p := s.want(200, "PATCH", certificates+"/site"+version, `{"tags":{"team":"ml"}}`)
	if p.get(t, "tags", "team") != "ml" || p.get(t, "properties", "thumbprint") != a.get(t, "properties", "thumbprint") {
		t.Errorf("after a PATCH: %s", p.body)
	}

	old, _ := upload(t, -time.Hour, "chat.example.com")
	for name, test := range map[string]struct{ body, field, message string }{
		"nothing":             {`{"location":"koreacentral","properties":{}}`, "properties.value", "want a PFX or PEM file in base64, got none"},
		"no base64":           {`{"location":"koreacentral","properties":{"value":"` + secret + `!"}}`, "properties.value", "want a PFX or PEM file in base64"},
		"no certificate":      {`{"location":"koreacentral","properties":{"value":"aGVsbG8="}}`, "properties.value", "want a PFX with one private key"},
		"an old one":          {old, "properties.value", "expired on"},
		"one of a Key Vault":  {`{"location":"koreacentral","properties":{"certificateKeyVaultProperties":{"keyVaultUrl":"https://v"}}}`, "properties.certificateKeyVaultProperties", "not built"},
		"a password of it":    {`{"location":"koreacentral","properties":{"password":"p"}}`, "properties.value", "want the certificate that the password is for"},
		"a number for a file": {`{"location":"koreacentral","properties":{"value":1}}`, "properties.value", "want text"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", certificates+"/other"+version, test.body)
			if a.get(t, "error", "target") != test.field || !strings.Contains(fmt.Sprint(a.get(t, "error", "message")), test.message) || bytes.Contains(a.body, []byte(secret)) {
				t.Errorf("got %s, want %s: %s", a.body, test.field, test.message)
			}
		})
	}
	s.want(404, "PUT", base+"/managedEnvironments/none/certificates/site"+version, body)
	s.want(204, "DELETE", certificates+"/other"+version, "")
	s.want(200, "DELETE", certificates+"/site"+version, "")
	s.want(404, "GET", certificates+"/site"+version, "")
}

func TestCustomDomains(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.environment("f")
	body, _ := upload(t, time.Hour, "chat.example.com", "*.models.example.com")
	s.want(200, "PUT", certificates+"/site"+version, body)
	s.want(200, "PUT", base+"/managedEnvironments/f/certificates/far"+version, body)
	id := func(name string) string { return certificates + "/" + name }
	const domains = `[{"name":"Chat.example.com","bindingType":"SniEnabled","certificateId":"` + certificates + `/site"},{"name":"plain.example.com","bindingType":"Disabled"}]`
	a := s.app("chat", withDomains(domains))
	if got := fmt.Sprint(a.get(t, "properties", "configuration", "ingress", "customDomains")); got !=
		"[map[bindingType:SniEnabled certificateId:"+id("site")+" name:chat.example.com] map[bindingType:Disabled name:plain.example.com]]" {
		t.Errorf("got %s", got)
	}
	for name, test := range map[string]struct{ domains, code, field string }{
		"a domain of another app":           {`[{"name":"plain.example.com"}]`, "ContainerAppCustomDomainInUse", "[0].name"},
		"a domain of the environment":       {`[{"name":"other.e.penstock.localhost"}]`, "ContainerAppInvalidValue", "[0].name"},
		"a domain twice":                    {`[{"name":"a.example.com"},{"name":"A.example.com"}]`, "ContainerAppInvalidValue", "[1].name"},
		"no domain":                         {`[{"name":"*.example.com"}]`, "ContainerAppInvalidValue", "[0].name"},
		"an address":                        {`[{"name":"192.0.2.1"}]`, "ContainerAppInvalidValue", "[0].name"},
		"no certificate":                    {`[{"name":"a.example.com","bindingType":"SniEnabled"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"a certificate that is not there":   {`[{"name":"a.example.com","bindingType":"SniEnabled","certificateId":"` + id("none") + `"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"one of another environment":        {`[{"name":"a.models.example.com","bindingType":"SniEnabled","certificateId":"` + base + `/managedEnvironments/f/certificates/far"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"one for other names":               {`[{"name":"a.example.com","bindingType":"SniEnabled","certificateId":"` + id("site") + `"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"a name below that of the wildcard": {`[{"name":"a.b.models.example.com","bindingType":"SniEnabled","certificateId":"` + id("site") + `"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"an app as certificate":             {`[{"name":"a.example.com","bindingType":"SniEnabled","certificateId":"` + base + `/containerApps/chat"}]`, "ContainerAppInvalidValue", "[0].certificateId"},
		"a managed certificate":             {`[{"name":"a.example.com","bindingType":"SniEnabled","certificateId":"` + base + `/managedEnvironments/e/managedCertificates/m"}]`, "FeatureNotSupported", "[0].certificateId"},
		"one that is made by itself":        {`[{"name":"a.example.com","bindingType":"Auto"}]`, "FeatureNotSupported", "[0].bindingType"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", base+"/containerApps/other"+version, withDomains(test.domains))
			if a.get(t, "error", "code") != test.code || a.get(t, "error", "target") != "configuration.ingress.customDomains"+test.field {
				t.Errorf("got %s, want %s of %s", a.body, test.code, test.field)
			}
		})
	}
	s.app("other", withDomains(`[{"name":"a.models.example.com","bindingType":"SniEnabled","certificateId":"`+id("site")+`"}]`))

	if a := s.want(200, "POST", base+"/containerApps/other/listCustomHostNameAnalysis"+version+"&customHostname=plain.example.com", ""); !strings.HasSuffix(fmt.Sprint(a.get(t, "conflictingContainerAppResourceId")), "/containerApps/chat") {
		t.Errorf("a domain that is taken: %s", a.body)
	}

	// A certificate that is shown stays, and its successor is for the same domains.
	if a := s.want(409, "DELETE", id("site")+version, ""); a.get(t, "error", "code") != "CertificateInUse" {
		t.Errorf("got %s", a.body)
	}
	narrow, _ := upload(t, time.Hour, "chat.example.com")
	if a := s.want(409, "PUT", id("site")+version, narrow); a.get(t, "error", "code") != "CertificateInUse" || !strings.Contains(string(a.body), "a.models.example.com") {
		t.Errorf("got %s", a.body)
	}
	next, _ := upload(t, 2*time.Hour, "chat.example.com", "*.models.example.com")
	s.want(200, "PUT", id("site")+version, next)
	for _, app := range []string{"chat", "other"} {
		s.await(s.want(202, "DELETE", base+"/containerApps/"+app+version, ""), "Location")
	}
	s.want(200, "DELETE", id("site")+version, "")
}

func TestARemovedDomainIsTold(t *testing.T) {
	s := start(t)
	s.environment("e")
	told := func() (messages []string) {
		t.Helper()
		for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Reason == "CustomDomainsRemoved" {
				messages = append(messages, e.Message)
			}
		}
		return messages
	}
	for _, step := range []struct {
		method, body string
		told         int
	}{
		{"PUT", withDomains(`[{"name":"a.example.com"},{"name":"b.example.com"}]`), 0},
		{"PUT", withDomains(`[{"name":"B.example.com"},{"name":"c.example.com"},{"name":"a.example.com"}]`), 0},
		{"PATCH", `{"tags":{"a":"1"}}`, 0},
		{"PUT", chat(nil), 1},
		{"PATCH", `{"properties":{"configuration":{"ingress":{"customDomains":[{"name":"d.example.com"}]}}}}`, 1},
		{"PATCH", `{"properties":{"configuration":{"ingress":null}}}`, 2},
	} {
		status := map[string]int{"PUT": 201, "PATCH": 202}[step.method]
		s.await(s.want(status, step.method, chatPath, step.body), "Azure-AsyncOperation")
		if got := told(); len(got) != step.told {
			t.Fatalf("%s %s: got %q, want %d events", step.method, step.body, got, step.told)
		}
	}
	got := told()
	if !strings.Contains(got[0], "'b.example.com', 'c.example.com', 'a.example.com'") || !strings.Contains(got[1], "domains 'd.example.com';") {
		t.Errorf("got %q, want the names", got)
	}
}
