package local

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// idLetters are those that Kubernetes makes names of: no vowels, so no words, and nothing that looks like another
// (k8s.io/apimachinery/pkg/util/rand).
const idLetters = "bcdfghjklmnpqrstvwxz2456789"

func randomID() string {
	var raw [5]byte
	_, _ = rand.Read(raw[:]) // never fails
	for i, b := range raw {
		raw[i] = idLetters[int(b)%len(idLetters)]
	}
	return string(raw[:])
}

// newName returns a name for a replica as Azure forms it: <revision>-<10 hex>-<5 letters and digits>. The first part
// is the same for all replicas of a revision and tells apps of one name in two groups apart. The caller holds mu.
func (e *Engine) newName(revision resource.ID) string {
	hash := sha256.Sum256([]byte(revision.Key()))
	for {
		name := revision.Base() + "-" + hex.EncodeToString(hash[:5]) + "-" + e.cfg.NewID()
		_, taken := e.keepers[name]
		stray := slices.ContainsFunc(e.strays, func(r resource.Replica) bool { return r.Name == name })
		if !taken && !stray {
			return name
		}
	}
}

// containerID is the same for every process that runs as this container.
func containerID(replica, container string) string {
	hash := sha256.Sum256([]byte(replica + "/" + container))
	return hex.EncodeToString(hash[:16])
}

// maxHostname is the longest name that a host may have in Linux and in DNS.
const maxHostname = 63

// hostname is the replica's name, cut as Kubernetes cuts that of a pod.
func hostname(replica string) string {
	if len(replica) > maxHostname {
		replica = replica[:maxHostname]
	}
	return strings.TrimRight(replica, "-.")
}
