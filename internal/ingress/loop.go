package ingress

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"time"

	"penstock/internal/link"
)

// An app that proxies to its own host would answer one request with requests until the machine has no descriptors left.
// So each request takes along which apps it has been to, and how often, in a field that apps pass on like any other.
//
// Only what replicas send counts, and only what this ingress wrote: each entry is one AES block that has the app, the count
// and zeros. An app can leave entries out, which gives it no more than requests of its own do. It can repeat entries that
// it was sent, which has its own requests refused earlier. It cannot make entries for other apps.
const (
	// hopsField is the name of that field.
	hopsField = "X-Penstock-Hops"
	// maxVisits is how often a request may come to one app. An app that calls itself on purpose seldom does so twice.
	maxVisits = 8
	// maxVisited bounds the entries of a request, each for another app.
	maxVisited = 32
)

// hops writes and reads the entries. Its keys are those of this process: to the next one, old entries mean nothing, so a
// loop starts to count again.
type hops struct {
	block cipher.Block
	seed  maphash.Seed

	mu     sync.Mutex
	looped map[string]time.Time // when a request of an app was last ended because of a loop
}

func newHops() *hops {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has the right length
	}
	return &hops{block: block, seed: maphash.MakeSeed(), looped: map[string]time.Time{}}
}

// id stands for an app in entries. Nobody outside sees it, so nobody can look for an app with the same one.
func (h *hops) id(app string) uint64 { return maphash.String(h.seed, app) }

// entry says that a request has been to the app n times.
func (h *hops) entry(id uint64, n int) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:], id)
	b[8] = byte(n)
	h.block.Encrypt(b[:], b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open reads an entry. ok is false for one that this ingress did not write.
func (h *hops) open(entry string) (id uint64, n int, ok bool) {
	var b [aes.BlockSize]byte
	if len(entry) != base64.RawURLEncoding.EncodedLen(len(b)) {
		return 0, 0, false
	}
	if _, err := base64.RawURLEncoding.Decode(b[:], []byte(entry)); err != nil {
		return 0, 0, false
	}
	h.block.Decrypt(b[:], b[:])
	if [7]byte(b[9:]) != [7]byte{} {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(b[:]), int(b[8]), true
}

// visit returns the field of a request that goes to an app, and how often it will have been there. visited is the number of
// apps in the field.
func (h *hops) visit(id uint64, given []string) (field string, times, visited int) {
	times, visited = 1, 1
	var others strings.Builder
	seen := map[uint64]bool{}
	for _, list := range given {
		for entry := range strings.SplitSeq(list, ",") {
			entry = strings.Trim(entry, " \t")
			who, n, ok := h.open(entry)
			switch {
			case !ok:
			case who == id:
				times = max(times, n+1)
			case !seen[who] && visited <= maxVisited:
				seen[who] = true
				visited++
				others.WriteString(", ")
				others.WriteString(entry)
			}
		}
	}
	return h.entry(id, min(times, maxVisits)) + others.String(), times, visited
}

// inLoop answers a request that has been to the app too often. For all others it sets what the replica is sent.
func (x *exchange) inLoop(rt *route) bool {
	h := x.in.hops
	x.hops = rt.firstHop
	given := x.r.Header[hopsField]
	if len(given) == 0 || rt.firstHop == "" || x.in.table.Load().neighbourhood(x.client.addr) == nil {
		return false
	}
	field, times, visited := h.visit(rt.hopID, given)
	switch {
	case times > maxVisits:
		h.mu.Lock()
		h.looped[rt.app] = time.Now()
		h.mu.Unlock()
		x.answer(http.StatusLoopDetected, 0, fmt.Sprintf("loop: this request has been to this app %d times already", maxVisits))
		return true
	case visited > maxVisited:
		// Not an event of the app, whose fault this need not be.
		x.answer(http.StatusLoopDetected, 0, fmt.Sprintf("loop: this request has been to %d apps already", maxVisited))
		return true
	}
	x.hops = field
	return false
}

// recent returns how long ago a request of an app was ended because of a loop.
func (h *hops) recent(now time.Time) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ago map[string]time.Duration
	for app, at := range h.looped {
		if d := now.Sub(at); d >= link.HeardFor {
			delete(h.looped, app)
		} else if ago == nil {
			ago = map[string]time.Duration{app: d}
		} else {
			ago[app] = d
		}
	}
	return ago
}
