package arm

import (
	"net/http"
	"slices"
	"strings"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// listedResource is the JSON of a resource in the list of all resources.
type listedResource struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	Type              string            `json:"type"`
	Location          string            `json:"location"`
	Tags              map[string]string `json:"tags,omitempty"`
	CreatedTime       *app.Time         `json:"createdTime,omitempty"`
	ChangedTime       *app.Time         `json:"changedTime,omitempty"`
	ProvisioningState string            `json:"provisioningState,omitempty"`
}

// listResources lists the resources of a subscription or of one of its groups, of all types.
func listResources(c *call) error {
	if c.vars["group"] != "" {
		if _, err := c.group(); err != nil {
			return err
		}
	}
	keep, err := c.resourceFilter()
	if err != nil {
		return err
	}
	expanded, err := c.expanded()
	if err != nil {
		return err
	}
	all, err := c.contents(c.vars["subscription"], c.vars["group"])
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e entry) bool { return !keep(e.Meta) })
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.ID.Key(), b.ID.Key()) })
	from, to, next, err := c.paged(len(all), func(i int) string { return all[i].ID.Key() })
	if err != nil {
		return err
	}
	var value []listedResource
	for _, e := range all[from:to] {
		one := listedResource{ID: e.ID.String(), Name: e.ID.Name, Type: e.ID.Type, Location: app.RegionName(e.Location), Tags: e.Tags}
		for _, field := range expanded {
			switch field {
			case "createdtime":
				one.CreatedTime = &app.Time{Time: e.Created}
			case "changedtime":
				one.ChangedTime = &app.Time{Time: e.Modified}
			case "provisioningstate":
				one.ProvisioningState = string(e.state)
			}
		}
		value = append(value, one)
	}
	answer := pageOf(value)
	answer.NextLink = next
	c.answer(http.StatusOK, answer)
	return nil
}

// parameter returns a query parameter, whose name matches in any case.
func (c *call) parameter(name string) string {
	for have, values := range c.r.URL.Query() {
		if strings.EqualFold(have, name) {
			return values[0]
		}
	}
	return ""
}

// expanded returns the fields that $expand asks for, in lower case.
func (c *call) expanded() ([]string, error) {
	var fields []string
	for field := range strings.SplitSeq(c.parameter("$expand"), ",") {
		field = strings.ToLower(strings.TrimSpace(field))
		switch field {
		case "createdtime", "changedtime", "provisioningstate":
			fields = append(fields, field)
		case "":
		default:
			return nil, &resource.InvalidError{Faults: []resource.Fault{{Code: "InvalidQueryParameterValue", Field: "$expand", Message: "want createdTime, changedTime and provisioningState, with commas between them, got '" + field + "'"}}}
		}
	}
	return fields, nil
}

// resourceFilter reads the $filter of a list of resources: comparisons of name, resourceType, resourceGroup and location, and
// a tag by tagName and tagValue.
func (c *call) resourceFilter() (keep func(resource.Meta) bool, err error) {
	return c.metaFilter("name", "resourceType", "resourceGroup", "location")
}

// metaFilter reads a $filter of comparisons of the given fields, and of a tag by tagName and tagValue.
func (c *call) metaFilter(allowed ...string) (keep func(resource.Meta) bool, err error) {
	f, err := readFilter(c.parameter("$filter"))
	if err != nil {
		return nil, err
	}
	bad := func(message string) error {
		return &resource.InvalidError{Faults: []resource.Fault{{Code: "InvalidFilter", Field: "$filter", Message: message}}}
	}
	var tagName, tagValue *string
	known := map[string]func(resource.Meta) string{
		"name":          func(m resource.Meta) string { return m.ID.Name },
		"resourcetype":  func(m resource.Meta) string { return m.ID.Type },
		"resourcegroup": func(m resource.Meta) string { return m.ID.Group },
		"location":      func(m resource.Meta) string { return app.RegionName(m.Location) },
	}
	fields := map[string]func(resource.Meta) string{}
	for _, field := range allowed {
		fields[strings.ToLower(field)] = known[strings.ToLower(field)]
	}
	for _, one := range f {
		name := strings.ToLower(strings.Join(one.path, "/"))
		want, isText := one.value.(string)
		switch {
		case !isText:
			return nil, bad(name + ": want a text in quotes")
		case name == "tagname" && one.op == "eq":
			tagName = &want
		case name == "tagvalue" && one.op == "eq":
			tagValue = &want
		case fields[name] == nil:
			return nil, bad("want " + strings.Join(allowed, ", ") + ", or tagName eq '...' and tagValue eq '...', got '" + name + " " + one.op + "'")
		}
	}
	if tagValue != nil && tagName == nil {
		return nil, bad("tagValue: want tagName beside it")
	}
	return func(m resource.Meta) bool {
		for _, one := range f {
			name := strings.ToLower(strings.Join(one.path, "/"))
			field := fields[name]
			if field == nil {
				continue
			}
			want, _ := one.value.(string)
			if name == "location" {
				want = app.RegionName(want)
			}
			if strings.EqualFold(field(m), want) != (one.op == "eq") {
				return false
			}
		}
		if tagName == nil {
			return true
		}
		for name, value := range m.Tags {
			if strings.EqualFold(name, *tagName) && (tagValue == nil || value == *tagValue) {
				return true
			}
		}
		return false
	}, nil
}
