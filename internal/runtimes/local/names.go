package local

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// idLetters are the characters that Kubernetes uses in generated names: no vowels, so that no words appear, and no two
// characters that look alike (k8s.io/apimachinery/pkg/util/rand).
const idLetters = "bcdfghjklmnpqrstvwxz2456789"

func randomID() string {
	var raw [5]byte
	_, _ = rand.Read(raw[:]) // never fails
	for i, b := range raw {
		raw[i] = idLetters[int(b)%len(idLetters)]
	}
	return string(raw[:])
}

// newName returns a name for a replica in Azure's form: <revision>-<10 hex>-<5 letters and digits>. The hex part is the
// same for all replicas of a revision. It distinguishes apps of the same name in two groups. The caller holds mu.
func (e *Engine) newName(revision resource.ID) string {
	hash := sha256.Sum256([]byte(revision.Key()))
	for {
		name := revision.Base() + "-" + hex.EncodeToString(hash[:5]) + "-" + e.cfg.NewID()
		_, taken := e.keepers[name]
		stray := slices.ContainsFunc(e.strays, func(r resource.Replica) bool { return r.Name == name })
		_, ended := e.ends[name]
		if !taken && !stray && !ended {
			return name
		}
	}
}

// containerID returns a container's ID. It is the same for every process that runs as this container.
func containerID(replica, container string) string {
	hash := sha256.Sum256([]byte(replica + "/" + container))
	return hex.EncodeToString(hash[:16])
}

// maxHostname is the maximum length of a host name in Linux and in DNS.
const maxHostname = 63

// hostname returns the replica's name, truncated in the same way as Kubernetes truncates a pod's.
func hostname(replica string) string {
	if len(replica) > maxHostname {
		replica = replica[:maxHostname]
	}
	return strings.TrimRight(replica, "-.")
}
