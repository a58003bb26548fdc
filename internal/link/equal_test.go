package link

import (
	"reflect"
	"testing"
)

// Every field of a revision is compared.
func TestRevisionsAreComparedWhole(t *testing.T) {
	of := reflect.TypeFor[Revision]()
	for i := range of.NumField() {
		var a, b Revision
		field := reflect.ValueOf(&b).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Int:
			field.SetInt(1)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Struct:
			inner := field.Field(1)
			if !inner.CanInt() {
				t.Fatalf("%s: want an integer as its second field, found %s", of.Field(i).Name, inner.Kind())
			}
			inner.SetInt(1)
		default:
			t.Fatalf("%s: this test does not know %s", of.Field(i).Name, field.Kind())
		}
		if a.equal(b) {
			t.Errorf("two revisions with different %s are equal", of.Field(i).Name)
		}
		if !b.equal(b) {
			t.Errorf("a revision with %s is not equal to itself", of.Field(i).Name)
		}
	}
}
