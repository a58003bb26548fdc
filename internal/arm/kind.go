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

// kind is a type of resource that users write: its list, GET, PUT, PATCH and DELETE, and the operations that they poll.
// Functions that are marked so may be nil.
type kind[T any] struct {
	// path is the address below the namespace, with a variable for each name: "managedEnvironments/{environment}".
	path string
	// noun and code name it in errors: "container app", "ContainerApp".
	noun, code string
	table      func(*store.Store) *store.Table[T]
	meta       func(*T) *resource.Meta

	// absent (may be nil) is Azure's answer for one that is not there, where it is not that of all.
	absent func(resource.ID) error
	// parent (may be nil) refuses requests for what is in something that is not there.
	parent func(*call) error
	// read decodes the body of a PUT and finds its faults.
	read func(id resource.ID, body []byte) (wanted T, notes []string, err error)
	// check (may be nil) does what takes time, before the write. was is zero when there is nothing yet.
	check func(c *call, was, wanted T) error
	// change moves what is wanted into v, where no other write happens; it may read the store. The Meta of v follows from
	// that of wanted.
	change func(c *call, v *T, exists bool, wanted *T) error
	// changed (may be nil) is told of a write that is done.
	changed func(c *call, was, now T)
	// removable (may be nil) refuses a deletion, where no write happens.
	removable func(c *call, v T) error
	// answer is the resource on the wire.
	answer func(c *call, v T) (any, error)
	// put and patch are what Azure answers to a write. A patch of 0 says that there is no PATCH.
	put, patch int

	// operations is set for resources that reconcile carries out: "containerapp" of containerappOperationStatuses. Without
	// it a write is done when it is stored, and what is deleted is gone at once.
	operations string
	// state and progress are those of such a resource: progress says whether the write of a generation has come to its end,
	// and why it failed if it did.
	state    func(*T) *resource.ProvisioningState
	progress func(v T, generation int64) (done bool, cause string)
}

// resources is a kind of whatever T.
type resources interface {
	typ() string
	register(on func(method, pattern string, handle func(*call) error) *route)
	operationsName() string
	metas(ctx context.Context, s *store.Store, in store.Scope) ([]resource.Meta, error)
	how(c *call, op store.Operation) (progress, error)
	// setVars makes a request that names another resource.
	setVars(c *call, id resource.ID)
	get(c *call) error
}

// kinds are all of them. What is added here has its routes, its operations and its place in lists of what there is.
func kinds() []resources {
	return []resources{environmentKind(), storageKind(), appKind(), jobKind(), executionKind{}, certificateKind()}
}

// kindOf is the kind of a type. There is one for every resource that has operations.
func kindOf(typ string) resources {
	for _, k := range kinds() {
		if strings.EqualFold(k.typ(), typ) {
			return k
		}
	}
	return nil
}

// levels splits the path into types and variables: "managedEnvironments" and "environment".
func (k kind[T]) levels() (types, vars []string) {
	for i, part := range strings.Split(k.path, "/") {
		if i%2 == 0 {
			types = append(types, part)
		} else {
			vars = append(vars, strings.Trim(part, "{}"))
		}
	}
	return types, vars
}

func (k kind[T]) typ() string {
	types, _ := k.levels()
	return namespace + "/" + strings.Join(types, "/")
}

func (k kind[T]) operationsName() string { return k.operations }

// id is that of the resource that a request names.
func (k kind[T]) id(c *call) resource.ID {
	_, vars := k.levels()
	id := resource.ID{Subscription: c.vars["subscription"], Group: c.vars["group"], Type: k.typ()}
	for i, name := range vars {
		if i > 0 {
			id.Name += "/"
		}
		id.Name += c.vars[name]
	}
	return id
}

func (k kind[T]) setVars(c *call, id resource.ID) {
	c.vars["subscription"], c.vars["group"] = id.Subscription, id.Group
	_, vars := k.levels()
	names := strings.Split(id.Name, "/")
	for i, name := range vars {
		c.vars[name] = names[i]
	}
}

func (k kind[T]) register(on func(method, pattern string, handle func(*call) error) *route) {
	one := groupPath + "/" + providerPath + "/" + k.path
	all := one[:strings.LastIndexByte(one, '/')]
	if types, _ := k.levels(); len(types) == 1 {
		on(http.MethodGet, "subscriptions/{subscription}/"+providerPath+"/"+types[0], k.list).query = pageQuery()
	}
	on(http.MethodGet, all, k.list).query = pageQuery()
	on(http.MethodGet, one, k.get)
	on(http.MethodPut, one, k.write)
	if k.patch != 0 {
		on(http.MethodPatch, one, k.merge)
	}
	on(http.MethodDelete, one, k.remove)
}

// find is the resource that a request names.
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

// metas are those in a scope, for lists of all that there is.
func (k kind[T]) metas(ctx context.Context, s *store.Store, in store.Scope) ([]resource.Meta, error) {
	found, err := k.table(s).List(ctx, in)
	var all []resource.Meta
	for i := range found {
		all = append(all, *k.meta(&found[i]))
	}
	return all, err
}

func (k kind[T]) list(c *call) error {
	if err := k.underParent(c); err != nil {
		return err
	}
	in := store.Scope{Subscription: c.vars["subscription"], Group: c.vars["group"]}
	if types, _ := k.levels(); len(types) > 1 {
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
	c.answer(http.StatusOK, answer)
	return nil
}

// write is PUT.
func (k kind[T]) write(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	written, err := k.store(c, "put", body)
	if err != nil {
		return err
	}
	return k.wrote(c, written, k.put)
}

// merge is PATCH: a JSON merge patch of the resource as it is answered.
func (k kind[T]) merge(c *call) error {
	found, err := k.find(c)
	if err != nil {
		return err
	}
	answer, err := k.answer(c, found)
	if err != nil {
		return err
	}
	body, err := c.patched(answer)
	if err != nil {
		return err
	}
	written, err := k.store(c, "patch", body)
	if err != nil {
		return err
	}
	return k.wrote(c, written, k.patch)
}

// wrote answers a write. One that is accepted is answered by its headers alone.
func (k kind[T]) wrote(c *call, v T, status int) error {
	if status == http.StatusAccepted {
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

// commit writes a resource together with the operation by which it is polled, if the kind has any, and begins that.
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

// store checks what was sent as far as it can be checked now, and keeps it.
func (k kind[T]) store(c *call, what string, body []byte) (T, error) {
	ctx := c.r.Context()
	if err := k.underParent(c); err != nil {
		var none T
		return none, err
	}
	was, err := k.table(c.Store).Get(ctx, k.id(c))
	id := k.meta(&was).ID // in the spelling that it was made with
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
		if k.operations != "" {
			*k.state(v) = resource.InProgress
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

// writable refuses to write what is being deleted.
func (k kind[T]) writable(v T) error {
	if k.operations == "" || *k.state(&v) != resource.Deleting {
		return nil
	}
	return refuse(http.StatusConflict, k.code+"OperationInProgress",
		"The %s '%s' is being deleted; write it again when it has gone.", k.noun, k.meta(&v).ID.Base())
}

// nextMeta is what is known of a resource after a write. was is zero when it is the first.
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

// sameLocation refuses to move a resource, which Azure cannot either.
func sameLocation(was resource.Meta, location string) error {
	if location == "" || app.RegionName(location) == app.RegionName(was.Location) {
		return nil
	}
	return refuse(http.StatusConflict, "InvalidResourceLocation",
		"The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.",
		was.ID.Base(), was.Location, was.ID.Group, location)
}

// errGone stops a change of what is not there.
var errGone = errors.New("there is nothing to delete")

// remove is DELETE. What is not there is deleted already.
func (k kind[T]) remove(c *call) error {
	ctx, id := c.r.Context(), k.id(c)
	_, err := k.commit(c, id, "delete", func(v *T, exists bool) error {
		if !exists {
			return errGone
		}
		if k.removable != nil {
			if err := k.removable(c, *v); err != nil {
				return err
			}
		}
		if k.operations != "" {
			*k.state(v) = resource.Deleting
		}
		return nil
	})
	switch {
	case errors.Is(err, errGone):
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	case err != nil:
		return err
	case k.operations == "":
		if err := k.table(c.Store).Delete(ctx, id); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// progress is how far the resource of an operation has come.
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
	p := progress{meta: *k.meta(&v), state: *k.state(&v)}
	p.gone = p.meta.Created.After(op.Started)
	p.done, p.cause = k.progress(v, op.Generation)
	return p, nil
}
