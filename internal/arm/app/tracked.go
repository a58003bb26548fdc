package app

import (
	"fmt"
	"regexp"
	"strings"

	"penstock/internal/resource"
)

// Tracked has the JSON fields of every resource that has a location and tags.
type Tracked struct {
	ID         string            `json:"id" arm:"ro"`
	Name       string            `json:"name"`
	Type       string            `json:"type" arm:"ro"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	SystemData *SystemData       `json:"systemData,omitempty" arm:"ro"`
	AddedByAz
}

// AddedByAz has the fields that az adds to the resources that it prints, and templates to those in them. They are not part
// of an answer.
type AddedByAz struct {
	APIVersion     string `json:"apiVersion,omitempty" arm:"ro"`
	ResourceGroup  string `json:"resourceGroup,omitempty" arm:"ro"`
	SubscriptionID string `json:"subscriptionId,omitempty" arm:"ro"`
	TenantID       string `json:"tenantId,omitempty" arm:"ro"`
}

// SystemData says when a resource was written. It does not say by whom, because all administrators have the same token.
type SystemData struct {
	CreatedByType      string `json:"createdByType"`
	CreatedAt          Time   `json:"createdAt"`
	LastModifiedByType string `json:"lastModifiedByType"`
	LastModifiedAt     Time   `json:"lastModifiedAt"`
}

func newTracked(m resource.Meta) Tracked {
	return Tracked{
		ID:         m.ID.String(),
		Name:       m.ID.Base(),
		Type:       m.ID.Type,
		Location:   m.Location,
		Tags:       m.Tags,
		SystemData: &SystemData{CreatedByType: "User", CreatedAt: Time{m.Created}, LastModifiedByType: "User", LastModifiedAt: Time{m.Modified}},
	}
}

var locationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ()-]{0,63}$`)

// tracked returns the Meta of a resource from the body of a PUT to id. It does not check the tags: that is done where
// their meaning is known.
func (r *reader) tracked(id resource.ID, w Tracked) resource.Meta {
	if w.Name != "" && !strings.EqualFold(w.Name, id.Base()) {
		r.add(resource.Fault{Code: codeBody, Field: "name", Message: fmt.Sprintf("want %q as in the address, got %q", id.Base(), w.Name)})
	}
	if w.Location != "" && !locationName.MatchString(w.Location) {
		r.add(resource.Fault{Code: "LocationNotAvailableForResourceType", Field: "location", Message: fmt.Sprintf("want the name of a region, as in koreacentral, got %q", w.Location)})
	}
	return resource.Meta{ID: id, Location: w.Location, Tags: w.Tags}
}

// located refuses a resource without a location.
func (r *reader) located(m resource.Meta) {
	if m.Location == "" {
		r.add(resource.Fault{Code: "LocationRequired", Field: "location", Message: "want the name of a region, as in koreacentral, got nothing"})
	}
}
