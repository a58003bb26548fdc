package resource

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxRevisionName is Azure's limit on "app--suffix".
const maxRevisionName = 54

var revisionSuffix = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

// RevisionName returns the name of an app's next revision. Its suffix is the one that the template asks for. Without one
// it is, as in Azure, seven random letters and digits for the first revision ("chat--20mh1s9"), and a number for later
// ones ("chat--0000001"). existing names the app's revisions.
func RevisionName(app, suffix string, existing []string) (string, error) {
	if suffix != "" {
		name := app + "--" + suffix
		if slices.Contains(existing, name) {
			return "", fmt.Errorf("template.revisionSuffix: want one that no other template of the app has, got %q", suffix)
		}
		return name, nil
	}
	if len(existing) == 0 {
		return app + "--" + strings.ToLower(rand.Text()[:7]), nil
	}
	last := 0
	for _, name := range existing {
		_, number, _ := strings.Cut(name, "--")
		if n, err := strconv.Atoi(number); err == nil && len(number) == 7 {
			last = max(last, n)
		}
	}
	return fmt.Sprintf("%s--%07d", app, last+1), nil
}

// validateRevisionSuffix checks the suffix that a user chose, and the length of the name that results from it.
func validateRevisionSuffix(app, suffix string) *Fault {
	name := app + "--" + suffix
	bad := func(found string) *Fault {
		return &Fault{"ContainerAppInvalidRevisionName", "template.revisionSuffix", fmt.Sprintf(
			"revision name %q %s; want at most %d characters in all, the suffix of lower-case letters, digits and single '-', starting with a letter and ending with a letter or digit",
			name, found, maxRevisionName)}
	}
	switch {
	case suffix == "":
		return nil
	case len(name) > maxRevisionName:
		return bad(fmt.Sprintf("has %d characters", len(name)))
	case !revisionSuffix.MatchString(suffix) || strings.Contains(suffix, "--"):
		return bad("is not well formed")
	}
	return nil
}
