package appsecrets_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"penstock/internal/appsecrets"
	"penstock/internal/resource"
	"penstock/internal/seal"
	"penstock/internal/store"
)

var (
	chat  = resource.AppID("s", "g", "chat")
	score = resource.JobID("s", "g", "score")
)

func open(t *testing.T, key byte) (*store.Store, *seal.Box) {
	t.Helper()
	documents, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "penstock.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := documents.Close(); err != nil {
			t.Error(err)
		}
	})
	return documents, box(t, key)
}

func box(t *testing.T, key byte) *seal.Box {
	t.Helper()
	b, err := seal.New(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sealed returns a secret of owner as the API stores it.
func sealed(b *seal.Box, owner resource.ID, name, value string) resource.AppSecret {
	s := resource.AppSecret{Name: name}
	s.Sealed = b.Seal(s.Purpose(owner), value)
	return s
}

func TestValues(t *testing.T) {
	documents, b := open(t, 1)
	_, err := documents.Apps().Put(t.Context(), chat, func(a *resource.App, _ bool) error {
		a.ID = chat
		a.Configuration.Secrets = []resource.AppSecret{sealed(b, chat, "key", "k1"), sealed(b, chat, "token", "t1")}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = documents.Jobs().Put(t.Context(), score, func(j *resource.Job, _ bool) error {
		j.ID = score
		j.Configuration.Secrets = []resource.AppSecret{sealed(b, score, "key", "k2")}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets := appsecrets.New(documents, b)
	for id, want := range map[resource.ID]map[string]string{chat: {"key": "k1", "token": "t1"}, score: {"key": "k2"}} {
		got, err := secrets.Values(t.Context(), id)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: got %d values, %v, want %d", id.Base(), len(got), err, len(want))
		}
		for name, value := range want {
			if got[name].Reveal() != value {
				t.Errorf("%s: secret %s: got %q, want %q", id.Base(), name, got[name].Reveal(), value)
			}
		}
		if printed := fmt.Sprint(got); strings.Contains(printed, want["key"]) {
			t.Errorf("%s: values print as %s, want no secret in it", id.Base(), printed)
		}
	}
	if _, err := secrets.Values(t.Context(), resource.AppID("s", "g", "gone")); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("an app that is not there: got %v, want ErrNotFound", err)
	}
	if _, err := appsecrets.New(documents, box(t, 2)).Values(t.Context(), chat); !errors.Is(err, seal.ErrOtherKey) || !strings.Contains(err.Error(), `secret "key" of chat`) {
		t.Errorf("another key: got %v, want ErrOtherKey with the name of the secret", err)
	}
}

func TestValue(t *testing.T) {
	documents, b := open(t, 1)
	secrets := appsecrets.New(documents, b)
	keys := resource.Keyring{Owner: chat, Secrets: []resource.AppSecret{sealed(b, chat, "password", "hunter2")}}
	if got, err := secrets.Value(keys, "password"); err != nil || got.Reveal() != "hunter2" {
		t.Errorf("got %q, %v, want hunter2", got.Reveal(), err)
	}
	if _, err := secrets.Value(keys, "other"); !errors.Is(err, resource.ErrNotFound) || !strings.Contains(err.Error(), `secret "other" of chat`) {
		t.Errorf("a secret that is not there: got %v, want ErrNotFound with its name", err)
	}
	// A sealed value that is copied to another app cannot be opened there.
	keys.Owner = resource.AppID("s", "g", "thief")
	if got, err := secrets.Value(keys, "password"); err == nil {
		t.Errorf("a secret of another app: got %q, want an error", got.Reveal())
	}
}
