package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNotFound is wrapped by every error that means that a resource does not exist.
var ErrNotFound = errors.New("not found")

// The resource types, in Azure's spelling.
const (
	TypeEnvironment = "Microsoft.App/managedEnvironments"
	TypeApp         = "Microsoft.App/containerApps"
	TypeRevision    = "Microsoft.App/containerApps/revisions"
	TypeReplica     = "Microsoft.App/containerApps/revisions/replicas"
	TypeCertificate = "Microsoft.App/managedEnvironments/certificates"
	TypeGroup       = "Microsoft.Resources/resourceGroups"
	TypeStorage     = "Microsoft.App/managedEnvironments/storages"
	TypeJob         = "Microsoft.App/jobs"
	TypeExecution   = "Microsoft.App/jobs/executions"
)

// ID names one resource, as Azure Resource Manager does. Two IDs name the same resource when their Keys are equal: ARM
// ignores case when it compares IDs, but answers with the spelling that was used first.
type ID struct {
	Subscription string
	Group        string
	Type         string // "Microsoft.App/containerApps/revisions"
	Name         string // one name for each level of the type: "chat/chat--1"
}

// EnvironmentID returns the ID of an environment.
func EnvironmentID(subscription, group, name string) ID {
	return ID{subscription, group, TypeEnvironment, name}
}

// AppID returns the ID of an app.
func AppID(subscription, group, name string) ID {
	return ID{subscription, group, TypeApp, name}
}

// JobID returns the ID of a job.
func JobID(subscription, group, name string) ID {
	return ID{subscription, group, TypeJob, name}
}

// GroupID returns the ID under which a resource group is stored. It is not the group's path in ARM, which ends with the
// name of the group.
func GroupID(subscription, name string) ID { return ID{subscription, name, TypeGroup, name} }

// Child returns the ID of a resource below id, as in app.Child("revisions", "chat--1").
func (id ID) Child(kind, name string) ID {
	return ID{id.Subscription, id.Group, id.Type + "/" + kind, id.Name + "/" + name}
}

// Parent returns the ID one level up. The parent of a top-level resource is the zero ID.
func (id ID) Parent() ID {
	t, n := strings.LastIndexByte(id.Type, '/'), strings.LastIndexByte(id.Name, '/')
	if n < 0 || t < 0 {
		return ID{}
	}
	return ID{id.Subscription, id.Group, id.Type[:t], id.Name[:n]}
}

// Base returns the last part of the name: "chat--1" of "chat/chat--1".
func (id ID) Base() string { return id.Name[strings.LastIndexByte(id.Name, '/')+1:] }

// Is says whether id has that type. It ignores case.
func (id ID) Is(typ string) bool { return strings.EqualFold(id.Type, typ) }

// IsZero says whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Equal says whether two IDs name the same resource. It is quicker than comparing their Keys.
func (id ID) Equal(other ID) bool {
	return id == other || strings.EqualFold(id.Name, other.Name) && strings.EqualFold(id.Group, other.Group) &&
		strings.EqualFold(id.Subscription, other.Subscription) && strings.EqualFold(id.Type, other.Type)
}

// Key returns the ID in lower case, which is the same for every spelling of an ID.
func (id ID) Key() string { return strings.ToLower(id.String()) }

// String returns the path of the resource in ARM.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	provider, kinds, _ := strings.Cut(id.Type, "/")
	const fixed = len("/subscriptions//resourceGroups//providers//")
	b := make([]byte, 0, fixed+len(id.Subscription)+len(id.Group)+len(id.Type)+len(id.Name)+2)
	b = append(append(b, "/subscriptions/"...), id.Subscription...)
	b = append(append(b, "/resourceGroups/"...), id.Group...)
	b = append(append(b, "/providers/"...), provider...)
	for names, more := id.Name, true; more; {
		var kind, name string
		kind, kinds, more = strings.Cut(kinds, "/")
		b = append(append(b, '/'), kind...)
		if names != "" {
			name, names, _ = strings.Cut(names, "/")
			b = append(append(b, '/'), name...)
		}
	}
	return string(b)
}

// ParseID parses the path of a resource. Fixed parts match in any case; names keep their spelling.
func ParseID(s string) (ID, error) {
	bad := func(why string) (ID, error) {
		return ID{}, fmt.Errorf("resource id %q: %s; want /subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME", s, why)
	}
	parts := strings.Split(strings.TrimSuffix(s, "/"), "/")
	if len(parts) < 9 || parts[0] != "" {
		return bad("too short")
	}
	if !strings.EqualFold(parts[1], "subscriptions") || !strings.EqualFold(parts[3], "resourceGroups") || !strings.EqualFold(parts[5], "providers") {
		return bad("not the path of a resource in a resource group")
	}
	rest := parts[7:]
	if len(rest)%2 != 0 {
		return bad("a type without a name")
	}
	id := ID{Subscription: parts[2], Group: parts[4], Type: canonicalProvider(parts[6])}
	var names []string
	for i := 0; i < len(rest); i += 2 {
		id.Type += "/" + rest[i]
		names = append(names, rest[i+1])
	}
	if slices.Contains(append([]string{id.Subscription, id.Group, id.Type}, names...), "") {
		return bad("an empty part")
	}
	id.Type, id.Name = canonicalType(id.Type), strings.Join(names, "/")
	return id, nil
}

// MarshalText makes an ID appear in JSON as its path.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses the path of a resource. An empty text is the zero ID.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// canonicalProvider returns the namespace s as Azure spells it, or unchanged when no type has it.
func canonicalProvider(s string) string {
	for _, t := range types() {
		if namespace, _, _ := strings.Cut(t, "/"); strings.EqualFold(s, namespace) {
			return namespace
		}
	}
	return s
}

// canonicalType returns the type s as Azure spells it, or unchanged when it is unknown.
func canonicalType(s string) string {
	for _, t := range types() {
		if strings.EqualFold(s, t) {
			return t
		}
	}
	return s
}

// types lists the types that ParseID recognises in any case. Resource groups are not among them: their paths have no
// provider.
func types() []string {
	return []string{TypeEnvironment, TypeApp, TypeRevision, TypeReplica, TypeCertificate, TypeStorage, TypeJob, TypeExecution}
}
