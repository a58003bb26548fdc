package admin_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

func TestStandbys(t *testing.T) {
	s := newServer(t, true)
	if got := get[wire.List[wire.Standby]](t, s, http.MethodGet, wire.StandbysPath, ""); got.Value == nil || len(got.Value) != 0 {
		t.Errorf("got %+v, want an empty list", got)
	}
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	one := chat.Child("revisions", "chat--1")
	s.machine.standbys = []runtimes.Standby{{Revision: one, Replica: "chat--1-a", Kind: resource.StandbyPaused, Ready: true, Since: at}}
	got := get[wire.List[wire.Standby]](t, s, http.MethodGet, wire.StandbysPath, "")
	if want := (wire.Standby{Revision: one.String(), Replica: "chat--1-a", Kind: "paused", Ready: true, Since: at}); len(got.Value) != 1 || got.Value[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.machine.err = errors.New("no engine")
	s.refuse(t, http.MethodGet, wire.StandbysPath, "", http.StatusInternalServerError, "StandbysFailed", "no engine")
}
