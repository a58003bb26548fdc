package arm

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// kind describes a type of resource that users write. Its list, GET, PUT, PATCH and DELETE follow from it, and the
// operations that clients poll. Only functions that are marked so may be nil.
type kind[T any] struct {
	// resourceType is "Microsoft.App/managedEnvironments/certificates". Its namespace is that of the routes.
	resourceType string
	// vars are the variables of the address, one for each level of the type: "environment" and "certificate".
	vars []string
	// noun and code name the resource in errors: "container app", "ContainerApp".
	noun, code string
	table      func(*store.Store) documents[T]
	meta       func(*T) *resource.Meta

	// absent (may be nil) returns the error for a resource that does not exist. It is needed where Azure's error differs
	// from that of other resources.
	absent func(resource.ID) error
	// parent (may be nil) refuses requests when the parent of the resource does not exist.
	parent func(*call) error
	// read decodes and checks the body of a PUT.
	read func(id resource.ID, body []byte) (wanted T, notes []string, err error)
	// check (may be nil) does the checks that take time, before the write. was is zero when the resource is new.
	check func(c *call, was, wanted T) error
	// change copies what is wanted into v. No other write happens meanwhile, and it can read the store. The Meta of v
	// is set from that of wanted afterwards.
	change func(c *call, v *T, exists bool, wanted *T) error
	// changed (may be nil) is called after a write.
	changed func(c *call, was, now T)
	// removable (may be nil) can refuse a deletion. No write happens meanwhile.
	removable func(c *call, v T) error
	// answer returns the JSON of the resource.
	answer func(c *call, v T) (any, error)
	// put and patch are the status codes of Azure's answers to a write. If patch is 0 there is no PATCH.
	put, patch int

	// operations is set for resources that reconcile works on. It is the beginning of the addresses of their operations, as
	// "containerapp" in containerappOperationStatuses. Without it a write is done when it is stored, and a deleted resource
	// is removed at once.
	operations string
	// progress says how far reconcile has come with such a resource.
	progress func(T) resource.Progress
}

// documents is the table of a type, for the parts that users write. The status of a resource has another writer.
type documents[T any] interface {
	Get(ctx context.Context, id resource.ID) (T, error)
	List(ctx context.Context, in store.Scope) ([]T, error)
	Put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error) (T, error)
	Begin(ctx context.Context, id resource.ID, change func(v *T, exists bool) error, operation func(v T) store.Operation) (T, error)
	DeleteIf(ctx context.Context, id resource.ID, may func(v T) error) error
}

// resources is a kind of any type.
type resources interface {
	typ() string
	register(on func(method, pattern string, handle func(*call) error) *route)
	operationsName() string
	metas(ctx context.Context, s *store.Store, in store.Scope) ([]entry, error)
	how(c *call, op store.Operation) (progress, error)
	// setVars sets the variables of a request as if it named that resource.
	setVars(c *call, id resource.ID)
	get(c *call) error
}

// kinds returns all kinds. A kind that is added here gets its routes and operations, and appears in lists of resources
// and of types.
func kinds() []resources {
	return []resources{environmentKind(), storageKind(), appKind(), jobKind(), executionKind{}, certificateKind()}
}

// kindOf returns the kind of a resource type, or nil. Every type that has operations has a kind.
func (a *api) kindOf(typ string) resources {
	for _, k := range a.kinds {
		if strings.EqualFold(k.typ(), typ) {
			return k
		}
	}
	return nil
}

func (k kind[T]) typ() string { return k.resourceType }

func (k kind[T]) operationsName() string { return k.operations }

// id returns the ID of the resource that a request names.
func (k kind[T]) id(c *call) resource.ID {
	id := resource.ID{Subscription: c.vars["subscription"], Group: c.vars["group"], Type: k.typ()}
	for i, name := range k.vars {
		if i > 0 {
			id.Name += "/"
		}
		id.Name += c.vars[name]
	}
	return id
}

func (k kind[T]) setVars(c *call, id resource.ID) {
	c.vars["subscription"], c.vars["group"] = id.Subscription, id.Group
	names := strings.Split(id.Name, "/")
	for i, name := range k.vars {
		c.vars[name] = names[i]
	}
}

// path returns the address below "providers", with a variable for each name: "Microsoft.App/managedEnvironments/{environment}".
func (k kind[T]) path() string {
	types := strings.Split(k.resourceType, "/")
	var path strings.Builder
	path.WriteString(types[0])
	for i, name := range k.vars {
		path.WriteString("/" + types[i+1] + "/{" + name + "}")
	}
	return path.String()
}

func (k kind[T]) register(on func(method, pattern string, handle func(*call) error) *route) {
	one := groupPath + "/providers/" + k.path()
	all := one[:strings.LastIndexByte(one, '/')]
	if len(k.vars) == 1 {
		on(http.MethodGet, "subscriptions/{subscription}/providers/"+k.resourceType, k.list).query = pageQuery()
	}
	on(http.MethodGet, all, k.list).query = pageQuery()
	on(http.MethodGet, one, k.get)
	on(http.MethodPut, one, k.write)
	if k.patch != 0 {
		on(http.MethodPatch, one, k.merge)
		tags := func(method string, handle func(*call) error) {
			r := on(method, one+tagsPath, handle)
			r.unlisted, r.namespace = true, ""
		}
		tags(http.MethodGet, k.getTags)
		for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
			tags(method, k.changeTags)
		}
	}
	on(http.MethodDelete, one, k.remove)
}

// find returns the resource that a request names.
func (k kind[T]) find(c *call) (T, error) {
	id := k.id(c)
	v, err := k.table(c.Store).Get(c.r.Context(), id)
	if errors.Is(err, resource.ErrNotFound) {
		if k.absent != nil {
			return v, k.absent(id)
		}
		return v, notFound(id)
	}
	return v, err
}

func (k kind[T]) underParent(c *call) error {
	if k.parent == nil {
		return nil
	}
	return k.parent(c)
}

// entry is a resource in a list of resources of all types.
type entry struct {
	resource.Meta
	state resource.ProvisioningState
}

// metas returns the entry of each resource in a scope.
func (k kind[T]) metas(ctx context.Context, s *store.Store, in store.Scope) ([]entry, error) {
	found, err := k.table(s).List(ctx, in)
	var all []entry
	for i := range found {
		one := entry{Meta: *k.meta(&found[i]), state: resource.Succeeded}
		if k.progress != nil {
			one.state = k.progress(found[i]).State(one.Meta)
		}
		all = append(all, one)
	}
	return all, err
}

func (k kind[T]) list(c *call) error {
	if err := k.underParent(c); err != nil {
		return err
	}
	in := store.Scope{Subscription: c.vars["subscription"], Group: c.vars["group"]}
	if len(k.vars) > 1 {
		in = store.Scope{Parent: k.id(c).Parent()}
	}
	all, err := k.table(c.Store).List(c.r.Context(), in)
	if err != nil {
		return err
	}
	from, to, next, err := c.paged(len(all), func(i int) string { return k.meta(&all[i]).ID.Key() })
	if err != nil {
		return err
	}
	var value []any
	for _, v := range all[from:to] {
		answer, err := k.answer(c, v)
		if err != nil {
			return err
		}
		value = append(value, answer)
	}
	answer := pageOf(value)
	answer.NextLink = next
	c.answer(http.StatusOK, answer)
	return nil
}

func (k kind[T]) get(c *call) error {
	v, err := k.find(c)
	if err != nil {
		return err
	}
	answer, err := k.answer(c, v)
	if err != nil {
		return err
	}
	c.written = k.meta(&v)
	c.answer(http.StatusOK, answer)
	return nil
}

// write answers a PUT.
func (k kind[T]) write(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	written, err := k.store(c, "put", body, nil)
	if err != nil {
		return err
	}
	return k.wrote(c, written, k.put)
}

// merge answers a PATCH. Its body is a JSON merge patch for the JSON that a GET returns.
func (k kind[T]) merge(c *call) error {
	var patch map[string]any // read after find, so that a resource that does not exist is reported first
	written, err := k.patchWith(c, func(resource.Meta) (_ map[string]any, err error) {
		if patch == nil {
			patch, err = c.mergePatch()
		}
		return patch, err
	})
	if err != nil {
		return err
	}
	return k.wrote(c, written, k.patch)
}

// patchWith merges a patch into a resource and writes it. patch is called with the resource as it is, and again after another
// write came first.
func (k kind[T]) patchWith(c *call, patch func(is resource.Meta) (map[string]any, error)) (T, error) {
	for {
		found, err := k.find(c)
		if err != nil {
			return found, err
		}
		changes, err := patch(*k.meta(&found))
		if err != nil {
			return found, err
		}
		answer, err := k.answer(c, found)
		if err != nil {
			return found, err
		}
		body, err := patched(answer, changes)
		if err != nil {
			return found, err
		}
		written, err := k.store(c, "patch", body, k.meta(&found))
		if errors.Is(err, errOvertaken) {
			continue // merge into what the other write stored; of all concurrent writes one succeeds each time
		}
		return written, err
	}
}

// errOvertaken refuses a write that is based on an older generation than the stored one.
var errOvertaken = errors.New("another write came first")

// wrote answers a write that is stored. The answer 202 has no body.
func (k kind[T]) wrote(c *call, v T, status int) error {
	c.written = k.meta(&v)
	if status == http.StatusAccepted {
		c.w.Header().Set("ETag", `"`+versionOf(*c.written)+`"`)
		c.w.WriteHeader(status)
		return nil
	}
	answer, err := k.answer(c, v)
	if err != nil {
		return err
	}
	c.answer(status, answer)
	return nil
}

// commit writes a resource. If the kind has operations it also stores the operation of the write and starts it.
func (k kind[T]) commit(c *call, id resource.ID, what string, change func(v *T, exists bool) error) (T, error) {
	if k.operations == "" {
		return k.table(c.Store).Put(c.r.Context(), id, change)
	}
	var op store.Operation
	written, err := k.table(c.Store).Begin(c.r.Context(), id, change, func(v T) store.Operation {
		op = newOperation(*k.meta(&v), what)
		return op
	})
	if err == nil {
		c.begun(op, k.operations)
	}
	return written, err
}

// store checks what was sent and stores it. If base is not nil, the body was made from the resource with that Meta, and
// the error is errOvertaken if the resource has been written since.
func (k kind[T]) store(c *call, what string, body []byte, base *resource.Meta) (T, error) {
	ctx := c.r.Context()
	if err := k.underParent(c); err != nil {
		var none T
		return none, err
	}
	was, err := k.table(c.Store).Get(ctx, k.id(c))
	id := k.meta(&was).ID // in the spelling of the first write
	if errors.Is(err, resource.ErrNotFound) {
		id, err = k.id(c), nil
	}
	if err != nil {
		return was, err
	}
	wanted, notes, err := k.read(id, body)
	if err != nil {
		return wanted, err
	}
	if f := resource.ValidateGroupName(id.Group); f != nil {
		return wanted, &resource.InvalidError{Faults: []resource.Fault{*f}}
	}
	if k.check != nil {
		if err := k.check(c, was, wanted); err != nil {
			return wanted, err
		}
	}
	now := time.Now().UTC()
	written, err := k.commit(c, id, what, func(v *T, exists bool) error {
		before := *k.meta(v)
		if base != nil && (before.Generation != base.Generation || !before.Created.Equal(base.Created)) {
			return errOvertaken
		}
		if err := c.precondition(exists, before); err != nil {
			return err
		}
		if err := c.undeletedGroup(id.Subscription, id.Group); err != nil {
			return err
		}
		if exists {
			if err := k.writable(*v); err != nil {
				return err
			}
			if err := sameLocation(before, k.meta(&wanted).Location); err != nil {
				return err
			}
		}
		if err := k.change(c, v, exists, &wanted); err != nil {
			return err
		}
		*k.meta(v) = nextMeta(before, *k.meta(&wanted), now)
		if !exists {
			c.System.Begin(id)
		}
		return nil
	})
	if err != nil {
		return written, err
	}
	c.warn(id, notes)
	if k.changed != nil {
		k.changed(c, was, written)
	}
	return written, nil
}

// writable refuses a write of a resource that is being deleted.
func (k kind[T]) writable(v T) error {
	if k.meta(&v).Deleted.IsZero() {
		return nil
	}
	return refuse(http.StatusConflict, k.code+"OperationInProgress",
		"The %s '%s' is being deleted; write it again when it is gone.", k.noun, k.meta(&v).ID.Base())
}

// nextMeta returns the Meta of a resource after a write. was is zero for the first write.
func nextMeta(was, wanted resource.Meta, now time.Time) resource.Meta {
	next := resource.Meta{
		ID: was.ID, Location: was.Location, Tags: wanted.Tags,
		Created: was.Created, Modified: now, Generation: was.Generation + 1,
	}
	if was.Generation == 0 {
		next.ID, next.Location, next.Created = wanted.ID, wanted.Location, now
	}
	return next
}

// sameLocation refuses to move a resource to another location, as Azure does.
func sameLocation(was resource.Meta, location string) error {
	if location == "" || app.RegionName(location) == app.RegionName(was.Location) {
		return nil
	}
	return refuse(http.StatusConflict, "InvalidResourceLocation",
		"The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.",
		was.ID.Base(), was.Location, was.ID.Group, location)
}

// remove answers a DELETE. Deleting a resource that does not exist is no error.
func (k kind[T]) remove(c *call) error {
	ctx, id := c.r.Context(), k.id(c)
	// No write happens between the check and the deletion, so that nothing can refer to what is gone.
	may := func(v T) error {
		if err := c.precondition(true, *k.meta(&v)); err != nil || k.removable == nil {
			return err
		}
		return k.removable(c, v)
	}
	var err error
	if k.operations == "" {
		err = k.table(c.Store).DeleteIf(ctx, id, may)
	} else {
		_, err = k.commit(c, id, "delete", func(v *T, exists bool) error {
			if !exists {
				return resource.ErrNotFound
			}
			if err := may(*v); err != nil {
				return err
			}
			if m := k.meta(v); m.Deleted.IsZero() {
				m.Deleted = time.Now().UTC()
			}
			return nil
		})
	}
	switch {
	case errors.Is(err, resource.ErrNotFound):
		if err := c.precondition(false, resource.Meta{}); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	case err != nil:
		return err
	case k.operations == "":
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// progress is the state of the resource of an operation.
type progress struct {
	meta  resource.Meta
	gone  bool
	state resource.ProvisioningState
	done  bool
	cause string
}

func (k kind[T]) how(c *call, op store.Operation) (progress, error) {
	v, err := k.table(c.Store).Get(c.r.Context(), op.Resource)
	if errors.Is(err, resource.ErrNotFound) {
		return progress{gone: true}, nil
	}
	if err != nil {
		return progress{}, err
	}
	come := k.progress(v)
	p := progress{meta: *k.meta(&v), cause: come.Failure}
	p.state, p.done = come.State(p.meta), come.Observed >= op.Generation
	p.gone = p.meta.Created.After(op.Started)
	return p, nil
}
