package autoscale

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

// implicitTarget is the target of the rule that an app with ingress and without rules has. Source: a maintainer's
// answer in github.com/microsoft/azure-container-apps, issue 348.
const implicitTarget = 10

const mebibyte = 1 << 20 // the unit of memory rules of type AverageValue

// policy returns the scaling policy of a revision. An app without ingress and rules scales to zero and stays there, as
// in Azure.
func policy(app resource.App, rev resource.Revision) scale.Policy {
	s, settings := rev.Template.Scale, rev.Settings
	p := scale.Policy{
		Behaviour: settings.Behaviour, Min: s.Min, Max: max(s.Max, s.Min, 1), Cooldown: s.Cooldown, Polling: s.Polling, ScaleIn: settings.ScaleInWindow,
	}
	p.Unjudged = rev.Ready.IsZero()
	for _, r := range s.Rules {
		p.Rules = append(p.Rules, rule(r, settings))
	}
	if in := app.Configuration.Ingress; len(p.Rules) == 0 && in != nil {
		implicit := scale.Rule{Name: "http (implicit)", Kind: scale.HTTP, Target: implicitTarget, Metric: metric(settings)}
		if in.Transport == resource.TransportTCP {
			implicit = scale.Rule{Name: "tcp (implicit)", Kind: scale.TCP, Target: implicitTarget}
		}
		p.Rules = []scale.Rule{implicit}
	}
	return p
}

func metric(s resource.Settings) scale.Metric { return scale.Metric(s.HTTPMetric) }

// rule converts a scale rule of a resource. Its metadata was checked when it was written. If it is invalid
// nevertheless, the rule is not evaluated, and its note says so.
func rule(r resource.ScaleRule, settings resource.Settings) scale.Rule {
	out := scale.Rule{Name: r.Name}
	request := func(kind scale.Kind, concurrent int) scale.Rule {
		out.Kind, out.Target = kind, float64(cmp.Or(concurrent, implicitTarget))
		if kind == scale.HTTP {
			out.Metric = metric(settings)
		}
		return out
	}
	other := func(why string) scale.Rule {
		out.Kind, out.Type = scale.Other, why
		return out
	}
	switch {
	case r.HTTP != nil:
		return request(scale.HTTP, r.HTTP.Concurrent)
	case r.TCP != nil:
		return request(scale.TCP, r.TCP.Concurrent)
	case r.AzureQueue != nil:
		return other("azureQueue")
	case r.Custom == nil:
		return other("nothing")
	}
	c := r.Custom
	number := func(key string) int {
		n, err := strconv.Atoi(c.Metadata[key])
		if err != nil {
			return 0
		}
		return n
	}
	switch c.Type {
	case "http":
		return request(scale.HTTP, number(resource.ConcurrentRequests))
	case "tcp":
		return request(scale.TCP, number(resource.ConcurrentConnections))
	case "cpu", "memory":
		switch kind := c.Metadata["type"]; kind {
		case "", resource.Utilization:
			out.Target = float64(number("value"))
		case resource.AverageValue:
			amount, err := resource.ParseQuantity(c.Metadata["value"])
			if err != nil {
				return other(fmt.Sprintf("%s (value: %v)", c.Type, err))
			}
			if c.Type == "memory" {
				amount /= mebibyte
			}
			out.Target, out.Amount = amount, true
		default:
			return other(c.Type + " of type " + kind)
		}
		out.Kind = scale.Kind(c.Type)
		return out
	case "cron":
		hours, err := window(c.Metadata)
		if err != nil {
			return other(fmt.Sprintf("cron (%v)", err))
		}
		out.Kind, out.Window, out.Target = scale.Cron, hours, float64(number("desiredReplicas"))
		out.Hours = fmt.Sprintf("%s to %s %s", c.Metadata["start"], c.Metadata["end"], c.Metadata["timezone"])
		return out
	case resource.External, resource.ExternalPush:
		out.Kind = scale.External
		return out
	}
	return other(c.Type)
}

// window returns the window of a cron rule.
func window(metadata map[string]string) (scale.Hours, error) {
	start, err := resource.ParseCron(metadata["start"])
	if err != nil {
		return scale.Hours{}, err
	}
	end, err := resource.ParseCron(metadata["end"])
	if err != nil {
		return scale.Hours{}, err
	}
	in, err := time.LoadLocation(metadata["timezone"])
	if err != nil {
		return scale.Hours{}, fmt.Errorf("timezone: %w", err)
	}
	return scale.Hours{Start: local{start}, End: local{end}, In: in}, nil
}

// local is a schedule in the time zone of the time that it is given.
type local struct{ resource.Cron }

// Next implements scale.Schedule.
func (l local) Next(t time.Time) time.Time { return l.NextLocal(t) }
