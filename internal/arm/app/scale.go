package app

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // machines can have no list of time zones, or an old one

	"penstock/internal/resource"
)

// rule converts a scale rule. Checks that do not depend on the JSON are in package resource.
func (r *reader) rule(field string, w ScaleRule) resource.ScaleRule {
	rule := resource.ScaleRule{Name: or(w.Name, "")}
	kinds := 0
	for _, set := range []bool{w.HTTP != nil, w.TCP != nil, w.Custom != nil, w.AzureQueue != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		if !r.spoiled(field) {
			r.add(resource.Fault{Code: codeValue, Field: field, Message: fmt.Sprintf("want one of http, tcp, custom and azureQueue, got %d of them", kinds)})
		}
		return rule
	}
	switch {
	case w.HTTP != nil:
		rule.HTTP = r.requestRule(field+".http", *w.HTTP, resource.ConcurrentRequests)
	case w.TCP != nil:
		rule.TCP = r.requestRule(field+".tcp", *w.TCP, resource.ConcurrentConnections)
	case w.AzureQueue != nil:
		q := w.AzureQueue
		if n := q.QueueLength; n != nil && *n < 1 {
			r.add(resource.Fault{Code: codeValue, Field: field + ".azureQueue.queueLength", Message: fmt.Sprintf("want a whole number from 1, got %d", *n)})
		}
		rule.AzureQueue = &resource.QueueRule{
			AccountName: or(q.AccountName, ""), QueueName: or(q.QueueName, ""), QueueLength: or(q.QueueLength, 0),
			Auth: ruleAuth(q.Auth), Identity: or(q.Identity, ""),
		}
	default:
		c := w.Custom
		rule.Custom = &resource.CustomRule{Type: or(c.Type, ""), Metadata: c.Metadata, Auth: ruleAuth(c.Auth), Identity: or(c.Identity, "")}
		if rule.Custom.Type == "cron" {
			at := field + ".custom"
			if !strings.HasPrefix(field, "template") {
				at = field // the rules of jobs have no kinds
			}
			r.timeZone(at+".metadata.timezone", c.Metadata["timezone"])
		}
	}
	return rule
}

func (r *reader) requestRule(field string, w MetricRule, key string) *resource.RequestRule {
	rule := &resource.RequestRule{Auth: ruleAuth(w.Auth), Identity: or(w.Identity, "")}
	for _, name := range slices.Sorted(maps.Keys(w.Metadata)) {
		at := field + ".metadata." + name
		if name != key {
			r.add(resource.Fault{Code: codeValue, Field: at, Message: "unknown name; want " + key})
			continue
		}
		n, err := resource.ParseTarget(w.Metadata[name])
		if err != nil {
			r.add(resource.Fault{Code: codeValue, Field: at, Message: err.Error()})
		}
		rule.Concurrent = n
	}
	return rule
}

// timeZone checks that a time zone is in the list that is part of this program. Package resource checks that there is a
// name at all.
func (r *reader) timeZone(field, name string) {
	if name == "" {
		return
	}
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		r.add(resource.Fault{Code: codeValue, Field: field, Message: fmt.Sprintf("want the name of a time zone, as in Asia/Seoul or UTC, got %q", name)})
	}
}

func ruleAuth(list []RuleAuth) (all []resource.RuleAuth) {
	for _, w := range list {
		all = append(all, resource.RuleAuth{SecretRef: or(w.SecretRef, ""), TriggerParameter: or(w.TriggerParameter, "")})
	}
	return all
}

// newScale returns the JSON of the scale section of a template.
func newScale(s resource.Scale) *Scale {
	w := &Scale{MaxReplicas: &s.Max, CooldownPeriod: wholeSeconds(s.Cooldown), PollingInterval: wholeSeconds(s.Polling)}
	if s.Min > 0 || s.ZeroMin {
		w.MinReplicas = &s.Min
	}
	for _, rule := range s.Rules {
		w.Rules = append(w.Rules, newScaleRule(rule))
	}
	return w
}

func newScaleRule(r resource.ScaleRule) ScaleRule {
	w := ScaleRule{Name: &r.Name}
	switch {
	case r.HTTP != nil:
		w.HTTP = newMetricRule(*r.HTTP, resource.ConcurrentRequests)
	case r.TCP != nil:
		w.TCP = newMetricRule(*r.TCP, resource.ConcurrentConnections)
	case r.AzureQueue != nil:
		q := r.AzureQueue
		w.AzureQueue = &QueueRule{
			AccountName: given(&q.AccountName), QueueName: given(&q.QueueName), Auth: newRuleAuth(q.Auth), Identity: given(&q.Identity),
		}
		if q.QueueLength != 0 {
			w.AzureQueue.QueueLength = &q.QueueLength
		}
	case r.Custom != nil:
		c := r.Custom
		w.Custom = &CustomRule{Type: &c.Type, Metadata: c.Metadata, Auth: newRuleAuth(c.Auth), Identity: given(&c.Identity)}
	}
	return w
}

func newMetricRule(r resource.RequestRule, key string) *MetricRule {
	w := &MetricRule{Metadata: map[string]string{}, Auth: newRuleAuth(r.Auth), Identity: given(&r.Identity)}
	if r.Concurrent > 0 {
		w.Metadata[key] = strconv.Itoa(r.Concurrent)
	}
	return w
}

func newRuleAuth(list []resource.RuleAuth) (all []RuleAuth) {
	for _, a := range list {
		all = append(all, RuleAuth{SecretRef: &a.SecretRef, TriggerParameter: &a.TriggerParameter})
	}
	return all
}
