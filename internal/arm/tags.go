package arm

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"penstock/internal/resource"
)

// tagsPath follows the address of a resource or a group.
const tagsPath = "/providers/Microsoft.Resources/tags/default"

// tagsAnswer is the JSON of the tags of a resource.
type tagsAnswer struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Properties tagsProperties `json:"properties"`
}

type tagsProperties struct {
	Tags map[string]string `json:"tags"`
}

func newTags(of string, tags map[string]string) tagsAnswer {
	if tags == nil {
		tags = map[string]string{}
	}
	return tagsAnswer{ID: of + tagsPath, Name: "default", Type: "Microsoft.Resources/tags", Properties: tagsProperties{tags}}
}

// tagChange reads what a request does to tags. Names match in any case.
func (c *call) tagChange() (change func(was map[string]string) map[string]string, err error) {
	if c.r.Method == http.MethodDelete {
		return func(map[string]string) map[string]string { return nil }, nil
	}
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	var sent struct {
		Operation  string         `json:"operation"`
		Properties tagsProperties `json:"properties"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is not one of tags: %v.", err)
	}
	tags := sent.Properties.Tags
	if faults := resource.ValidateTags(tags); len(faults) > 0 {
		return nil, &resource.InvalidError{Faults: faults}
	}
	if c.r.Method == http.MethodPut {
		sent.Operation = "replace"
	}
	named := func(name string) (value string, ok bool) {
		for have, value := range tags {
			if strings.EqualFold(have, name) {
				return value, true
			}
		}
		return "", false
	}
	// added returns to with the tags that were sent. A name that was there keeps its spelling.
	added := func(to, was map[string]string) map[string]string {
		next := map[string]string{}
		maps.Copy(next, to)
		for name, value := range tags {
			for have := range was {
				if strings.EqualFold(have, name) {
					name = have
				}
			}
			next[name] = value
		}
		return next
	}
	switch strings.ToLower(sent.Operation) {
	case "replace":
		return func(was map[string]string) map[string]string { return added(nil, was) }, nil
	case "merge":
		return func(was map[string]string) map[string]string { return added(was, was) }, nil
	case "delete":
		return func(was map[string]string) map[string]string {
			next := maps.Clone(was)
			maps.DeleteFunc(next, func(name, value string) bool {
				want, ok := named(name)
				return ok && (want == "" || want == value)
			})
			return next
		}, nil
	}
	return nil, refuse(http.StatusBadRequest, "InvalidRequestContent", "operation: want Merge, Replace or Delete, got '%s'.", sent.Operation)
}

// getTags answers with the tags of a resource.
func (k kind[T]) getTags(c *call) error {
	v, err := k.find(c)
	if err != nil {
		return err
	}
	m := k.meta(&v)
	c.written = m
	c.answer(http.StatusOK, newTags(m.ID.String(), m.Tags))
	return nil
}

// changeTags writes only the tags of a resource.
func (k kind[T]) changeTags(c *call) error {
	if _, err := k.find(c); err != nil {
		return err
	}
	change, err := c.tagChange()
	if err != nil {
		return err
	}
	written, err := k.patchWith(c, func(m resource.Meta) (map[string]any, error) {
		next, patch := change(m.Tags), map[string]any{}
		for name := range m.Tags {
			patch[name] = nil
		}
		tags := map[string]any{}
		for name, value := range next {
			delete(patch, name)
			tags[name] = value
		}
		maps.Copy(patch, tags)
		return map[string]any{"tags": patch}, nil
	})
	if err != nil {
		return err
	}
	// The tags are stored; nobody has to wait until the platform has observed them.
	for _, name := range []string{"Azure-AsyncOperation", "Location", "Retry-After", "x-ms-async-operation-timeout"} {
		c.w.Header().Del(name)
	}
	m := k.meta(&written)
	c.written = m
	c.answer(http.StatusOK, newTags(m.ID.String(), m.Tags))
	return nil
}

func getGroupTags(c *call) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	c.written = &g.meta
	c.answer(http.StatusOK, newTags(g.ID, g.Tags))
	return nil
}

func changeGroupTags(c *call) error {
	found, err := c.group()
	if err != nil {
		return err
	}
	change, err := c.tagChange()
	if err != nil {
		return err
	}
	id := resource.GroupID(c.vars["subscription"], c.vars["group"])
	written, err := c.Store.Groups().Put(c.r.Context(), id, func(g *resource.Group, _ bool) error {
		if err := errors.Join(c.precondition(true, g.Meta), c.undeletedGroup(id.Subscription, id.Group)); err != nil {
			return err
		}
		tags := change(g.Tags)
		if faults := resource.ValidateTags(tags); len(faults) > 0 {
			return &resource.InvalidError{Faults: faults}
		}
		g.Meta = nextMeta(g.Meta, resource.Meta{ID: id, Location: found.Location, Tags: tags}, time.Now().UTC())
		return nil
	})
	if err != nil {
		return err
	}
	c.written = &written.Meta
	c.answer(http.StatusOK, newTags(found.ID, written.Tags))
	return nil
}
