package admin

import (
	"net/http"

	"penstock/internal/admin/wire"
)

func (a *api) standbys(w http.ResponseWriter, r *http.Request) {
	all, err := a.Runtime.Standbys(r.Context())
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "StandbysFailed", err)
		return
	}
	list := wire.List[wire.Standby]{Value: []wire.Standby{}}
	for _, s := range all {
		list.Value = append(list.Value, wire.Standby{
			Revision: s.Revision.String(), Replica: s.Replica, Kind: string(s.Kind), Ready: s.Ready, Since: s.Since.UTC(),
		})
	}
	a.respond(w, http.StatusOK, list)
}
