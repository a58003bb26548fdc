package resource

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Scale bounds the number of replicas and has the rules that determine it.
type Scale struct {
	Min int
	Max int
	// ZeroMin says that a Min of 0 was written as such. It has no effect: answers tell it from a Min that was not written.
	ZeroMin bool `json:",omitempty"`
	// Cooldown is how long no rule must have asked for a replica before the last one is removed. Polling is how often
	// custom rules are measured.
	Cooldown time.Duration
	Polling  time.Duration
	Rules    []ScaleRule `json:",omitempty"`
}

// The defaults of Container Apps (learn.microsoft.com/azure/container-apps/scale-app).
const (
	DefaultCooldown = 300 * time.Second
	DefaultPolling  = 30 * time.Second
)

// ScaleRule is a rule by which replicas are added and removed. Exactly one of its kinds is set.
type ScaleRule struct {
	Name       string
	HTTP       *RequestRule `json:",omitempty"`
	TCP        *RequestRule `json:",omitempty"`
	AzureQueue *QueueRule   `json:",omitempty"`
	Custom     *CustomRule  `json:",omitempty"`
}

// RequestRule scales by the number of requests or connections of a revision.
type RequestRule struct {
	// Concurrent is how many of them each replica should have at a time. 0 means that the rule does not say.
	Concurrent int
	Auth       []RuleAuth `json:",omitempty"`
	Identity   string     `json:",omitempty"`
}

// QueueRule scales by the length of an Azure storage queue.
type QueueRule struct {
	AccountName string `json:",omitempty"`
	QueueName   string
	// QueueLength is how many messages there should be for each replica. 0 means that the rule does not say.
	QueueLength int
	Auth        []RuleAuth `json:",omitempty"`
	Identity    string     `json:",omitempty"`
}

// CustomRule scales by what a KEDA scaler measures. Its metadata are those of the scaler.
type CustomRule struct {
	Type     string
	Metadata map[string]string
	Auth     []RuleAuth `json:",omitempty"`
	Identity string     `json:",omitempty"`
}

// RuleAuth passes the value of a secret of the app to a scaler.
type RuleAuth struct{ SecretRef, TriggerParameter string }

// Target returns how many requests (http rule) or connections (tcp rule) each replica should have at a time, or 0 when no
// rule says. The smallest of several counts, because it asks for the most replicas.
func (s Scale) Target() (target int) {
	for _, rule := range s.Rules {
		for _, kind := range []*RequestRule{rule.HTTP, rule.TCP} {
			if kind != nil && kind.Concurrent > 0 && (target == 0 || kind.Concurrent < target) {
				target = kind.Concurrent
			}
		}
	}
	return target
}

// UnmarshalJSON also reads the form that earlier versions stored, which was the rules as they had been sent. Numbers in
// them that cannot be parsed and unknown names of metadata had no effect. They are left out.
func (s *Scale) UnmarshalJSON(b []byte) error {
	type plain Scale
	kept := plain{Cooldown: DefaultCooldown, Polling: DefaultPolling}
	if err := json.Unmarshal(b, &kept); err != nil {
		return err
	}
	*s = Scale(kept)
	var earlier struct{ Stored map[string]json.RawMessage }
	if err := json.Unmarshal(b, &earlier); err != nil {
		return err
	}
	var seconds int
	if json.Unmarshal(earlier.Stored["cooldownPeriod"], &seconds) == nil {
		s.Cooldown = time.Duration(seconds) * time.Second
	}
	if json.Unmarshal(earlier.Stored["pollingInterval"], &seconds) == nil {
		s.Polling = time.Duration(seconds) * time.Second
	}
	if text, ok := earlier.Stored["rules"]; ok {
		s.Rules = sentRules(text)
	}
	return nil
}

// sentRules converts rules from the form in which they were sent. Names match in any case.
func sentRules(text []byte) (rules []ScaleRule) {
	type request struct {
		Metadata map[string]string
		RequestRule
	}
	var sent []struct {
		ScaleRule
		HTTP, TCP *request
	}
	if err := json.Unmarshal(text, &sent); err != nil {
		return nil // this was never accepted by a write
	}
	concurrent := func(r *request, key string) *RequestRule {
		if r == nil {
			return nil
		}
		if n, err := strconv.Atoi(r.Metadata[key]); err == nil {
			r.Concurrent = max(n, 0)
		}
		return &r.RequestRule
	}
	for _, rule := range sent {
		rule.ScaleRule.HTTP = concurrent(rule.HTTP, ConcurrentRequests)
		rule.ScaleRule.TCP = concurrent(rule.TCP, ConcurrentConnections)
		rules = append(rules, rule.ScaleRule)
	}
	return rules
}

// The metadata of http and tcp rules.
const (
	ConcurrentRequests    = "concurrentRequests"
	ConcurrentConnections = "concurrentConnections"
)

// The types of cpu and memory rules, in their metadata: the value is a percentage of the limit, or vCPUs or bytes.
const (
	Utilization  = "Utilization"
	AverageValue = "AverageValue"
)

// The types of custom rules that an external scaler measures, and their metadata.
const (
	External      = "external"
	ExternalPush  = "external-push"
	ScalerAddress = "scalerAddress"
	// FromEnv ends the names of metadata whose value is that of an environment variable of the first container.
	FromEnv = "FromEnv"
)

// highestUtilization is the highest target in percent that can add replicas: they use at most 100 % of their limit, and the
// count does not change within a tenth of the target.
const highestUtilization = 90

// Remarks returns a sentence for each rule that is valid and cannot do all that it says.
func (s Scale) Remarks() (all []string) {
	for i, rule := range s.Rules {
		c := rule.Custom
		if c == nil {
			continue
		}
		at := fmt.Sprintf("template.scale.rules[%d].custom.metadata.", i)
		switch c.Type {
		case "cron":
			if n, err := ParseTarget(c.Metadata["desiredReplicas"]); err == nil && n > s.Max {
				all = append(all, fmt.Sprintf("%sdesiredReplicas is %d, and there are never more than %d replicas because of maxReplicas", at, n, s.Max))
			}
		case "cpu", "memory":
			if n, err := ParseTarget(c.Metadata["value"]); err == nil && n > highestUtilization && c.Metadata["type"] != AverageValue {
				all = append(all, fmt.Sprintf("%svalue is %d, and the rule never adds a replica: replicas use at most 100 %% of their limit, and up to a tenth more "+
					"than the value changes nothing. Want at most %d", at, n, highestUtilization))
			}
		}
	}
	return all
}

// maxRuleName is the greatest length of a rule's name. Azure documents no pattern for it.
const maxRuleName = 256

// ParseTarget parses a number in metadata, whose values are text: a whole number from 1 in decimal digits.
func ParseTarget(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<31-1 || strconv.Itoa(n) != s {
		return 0, fmt.Errorf(`want a whole number from 1 as text, as in "10", got %q`, s)
	}
	return n, nil
}

// validateRules checks the rules of a template. Whether their secrets exist is checked elsewhere.
func validateRules(t Template) []Fault {
	var faults []Fault
	seen := map[string]bool{}
	for i, rule := range t.Scale.Rules {
		field := fmt.Sprintf("template.scale.rules[%d]", i)
		at := field
		if kind, _ := rule.auth(); kind != "" {
			at += "." + kind
		}
		faults = append(faults, validateRule(rule, field, at, seen, t)...)
	}
	return faults
}

// validateRule checks a rule. Its name is at the path field, and its auth and metadata are at the path kind.
func validateRule(rule ScaleRule, field, kind string, seen map[string]bool, t Template) []Fault {
	var faults []Fault
	bad := func(at, format string, args ...any) {
		faults = append(faults, Fault{codeValue, at, fmt.Sprintf(format, args...)})
	}
	if rule.Name == "" {
		bad(field+".name", "want a name, got nothing")
	} else if len(rule.Name) > maxRuleName || strings.ContainsFunc(rule.Name, unicode.IsControl) {
		bad(field+".name", "want at most %d bytes without line breaks and control characters, got %.40q", maxRuleName, rule.Name)
	} else if seen[rule.Name] {
		bad(field+".name", "%q is the name of another rule already", rule.Name)
	}
	seen[rule.Name] = true
	_, auth := rule.auth()
	for j, a := range auth {
		if a.SecretRef == "" {
			bad(fmt.Sprintf("%s.auth[%d].secretRef", kind, j), "want the name of a secret, got nothing")
		}
		if a.TriggerParameter == "" {
			bad(fmt.Sprintf("%s.auth[%d].triggerParameter", kind, j), "want the name of the scaler's parameter that gets the secret, got nothing")
		}
	}
	if q := rule.AzureQueue; q != nil && q.QueueName == "" {
		bad(kind+".queueName", "want the name of a queue, got nothing")
	}
	if c := rule.Custom; c != nil {
		for _, f := range c.validate(t) {
			bad(kind+"."+f.Field, "%s", f.Message)
		}
	}
	return faults
}

// auth returns the secrets that a rule passes to its scaler, and the field of the rule that lists them.
func (r ScaleRule) auth() (at string, auth []RuleAuth) {
	switch {
	case r.HTTP != nil:
		return "http", r.HTTP.Auth
	case r.TCP != nil:
		return "tcp", r.TCP.Auth
	case r.AzureQueue != nil:
		return "azureQueue", r.AzureQueue.Auth
	case r.Custom != nil:
		return "custom", r.Custom.Auth
	}
	return "", nil
}

// validate checks the metadata of common scalers, as KEDA does when it starts one. It accepts any metadata of other
// scalers. t is the template whose first container has the variables that metadata can name.
func (c CustomRule) validate(t Template) (faults []Fault) {
	bad := func(key, format string, args ...any) {
		faults = append(faults, Fault{Field: "metadata." + key, Message: fmt.Sprintf(format, args...)})
	}
	number := func(key string, needed bool) {
		got, given := c.Metadata[key]
		if !given && !needed {
			return
		}
		if _, err := ParseTarget(got); err != nil {
			bad(key, "%v", err)
		}
	}
	switch c.Type {
	case "":
		faults = append(faults, Fault{Field: "type", Message: "want the name of a KEDA scaler, got nothing"})
	case "http":
		number(ConcurrentRequests, false)
	case "tcp":
		number(ConcurrentConnections, false)
	case "cpu", "memory":
		switch kind := c.Metadata["type"]; kind {
		case "", Utilization:
			number("value", true)
		case AverageValue:
			if _, err := ParseQuantity(c.Metadata["value"]); err != nil {
				bad("value", "%v", err)
			}
		default:
			bad("type", "want Utilization or AverageValue, got %q", kind)
		}
		if name, given := c.Metadata["containerName"]; given && (len(t.Containers) != 1 || t.Containers[0].Name != name) {
			bad("containerName", "want nothing, or the name of the only container, because the containers of a replica are measured together, got %q", name)
		}
	case "azure-queue":
		if c.Metadata["queueName"] == "" {
			bad("queueName", "want the name of a queue, got nothing")
		}
		number("queueLength", false)
	case "cron":
		c.validateCron(bad)
	case External, ExternalPush:
		return c.validateExternal(t)
	}
	return faults
}

// externalAuth are the parameters that external scalers have in KEDA. Others would have no effect.
var externalAuth = []string{"caCert", "tlsClientCert", "tlsClientKey"}

// validateExternal checks the metadata of an external scaler (keda.sh/docs/latest/scalers/external).
func (c CustomRule) validateExternal(t Template) (faults []Fault) {
	bad := func(field, format string, args ...any) {
		faults = append(faults, Fault{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if err := checkScalerAddress(c.Metadata[ScalerAddress]); err != nil {
		bad("metadata."+ScalerAddress, "%v", err)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Metadata)) {
		value := c.Metadata[key]
		at := "metadata." + key
		switch {
		case key == "enableTLS" || key == "unsafeSsl":
			if _, err := strconv.ParseBool(value); err != nil {
				bad(at, "want true or false, got %q", value)
			}
		case key == "tlsCertFile":
			bad(at, "want nothing: it would be a file of KEDA's own container. Pass the certificate as the parameter caCert in auth")
		case strings.HasSuffix(key, FromEnv):
			if len(t.Containers) == 0 || !slices.ContainsFunc(t.Containers[0].Env, func(v EnvVar) bool { return v.Name == value }) {
				bad(at, "want the name of an environment variable of the first container, got %q", value)
			}
		}
	}
	given := map[string]bool{}
	for i, a := range c.Auth {
		at := fmt.Sprintf("auth[%d].triggerParameter", i)
		if a.TriggerParameter != "" && !slices.Contains(externalAuth, a.TriggerParameter) {
			bad(at, "want %s, which are all that external scalers have, got %q. To send another secret to the scaler, set an environment variable "+
				"to it and name the variable in metadata, as in passwordFromEnv", strings.Join(externalAuth, ", "), a.TriggerParameter)
		}
		if given[a.TriggerParameter] {
			bad(at, "%q is given twice", a.TriggerParameter)
		}
		given[a.TriggerParameter] = true
	}
	if given["tlsClientCert"] != given["tlsClientKey"] {
		bad("auth", "want both tlsClientCert and tlsClientKey or neither, got one of them")
	}
	return faults
}

// checkScalerAddress checks an address of the form host:port. gRPC's other forms are refused: they lead to files of
// the server, or leave it to others where the scaler is.
func checkScalerAddress(address string) error {
	at := max(0, strings.LastIndexByte(address, ':'))
	host, port := address[:at], strings.TrimPrefix(address[at:], ":")
	n, err := strconv.Atoi(port)
	good := scalerHost.MatchString(host)
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		good = err == nil && a.Is6() && strings.HasSuffix(inner, "]")
	}
	if err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port || !good {
		return fmt.Errorf("want the host and port of a gRPC server, as in scaler:80 or 192.0.2.7:6000, got %q", address)
	}
	return nil
}

var scalerHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// validateCron checks a time window. The time zone is not checked here, because this package has no list of time zones.
func (c CustomRule) validateCron(bad func(key, format string, args ...any)) {
	var ends []string
	for _, key := range []string{"start", "end"} {
		got, given := c.Metadata[key]
		if !given || got == "" {
			bad(key, "want a schedule of 5 fields, as in \"0 8 * * 1-5\", got nothing")
		} else if _, err := ParseCron(got); err != nil {
			bad(key, "%v", err)
		}
		ends = append(ends, strings.Join(strings.Fields(got), " "))
	}
	if ends[0] == ends[1] && ends[0] != "" {
		bad("end", "want another time than start, got %q for both: the window has no length", ends[1])
	}
	if c.Metadata["timezone"] == "" {
		bad("timezone", "want the name of a time zone, as in Asia/Seoul or UTC, got nothing")
	}
	switch got, given := c.Metadata["desiredReplicas"]; {
	case !given:
		bad("desiredReplicas", `want a whole number from 1 as text, as in "10", got nothing`)
	case got == "0":
		bad("desiredReplicas", "want at least 1, got 0: a cron rule asks for at least so many replicas within its window and cannot lower their number. "+
			"For no replicas at some time, set minReplicas to 0 and give the rule the other times")
	default:
		if _, err := ParseTarget(got); err != nil {
			bad("desiredReplicas", "%v", err)
		}
	}
}
