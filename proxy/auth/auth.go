// Package auth says whose request it is: it knows the API keys by their SHA-256 hashes, finds the one that a client presents, and
// follows the key file while the server runs. What a key may do is data for others: limits are counted in limit, a refused model is
// answered by server. It knows no HTTP library and never logs; what happened is returned or reported to the owner.
//
//	API_KEYS_FILE ──parse──▶ set ──atomic pointer──▶ Lookup   (a file with a mistake leaves the set as it is)
//	API_KEYS ───────parse──▶
package auth

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// MaxSecretBytes is the longest key that is looked at.
const MaxSecretBytes = 256

// ErrNoKeys is returned by Open when nobody could ever be let in.
var ErrNoKeys = errors.New("no API keys: set API_KEYS_FILE (make an entry with: tandem-proxy keys new NAME) or API_KEYS=name:secret, or AUTH_DISABLED=true to let everybody in")

// Key is what is known about a key. It is shared and must not be changed.
type Key struct {
	Name    string    // unique; the id under which requests are counted
	Domain  string    // "" for none
	Rate    *Rate     // nil: the configured default
	Models  []string  // nil: all
	Expires time.Time // zero: never
	Enabled bool
}

// Rate is a limit of its own; it has the form of limit.Rate, so that one converts to the other. The zero Rate is no limit.
type Rate struct {
	Requests int
	Unit     time.Duration
}

// MayUse tells whether the key may ask for a model.
func (k *Key) MayUse(model string) bool { return k.Models == nil || slices.Contains(k.Models, model) }

// Outcome says how a look-up ended. Clients get the same 401 for all but OK; the log may tell them apart.
type Outcome uint8

// Outcomes of Lookup and Credentials.
const (
	OK Outcome = iota
	Missing
	Ambiguous // two different keys in one request
	TooLong
	Unknown
	Disabled
	Expired
)

var outcomeNames = [...]string{"ok", "missing", "ambiguous", "too_long", "unknown", "disabled", "expired"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "invalid"
}

type digest = [sha256.Size]byte

// set is what one reading of file and variable gave. It never changes.
type set struct {
	byDigest map[digest]*Key
	names    []string // sorted
}

// Keys holds the current keys. Its methods are safe from any goroutine.
type Keys struct {
	options Options
	fixed   []entry // from API_KEYS
	current atomic.Pointer[set]
	file    fileState // owned by Open, then by Watch
}

// Lookup finds the key that a client presented. The key is nil unless the outcome is OK.
func (k *Keys) Lookup(presented string, now time.Time) (*Key, Outcome) {
	if presented == "" {
		return nil, Missing
	}
	if len(presented) > MaxSecretBytes {
		return nil, TooLong
	}
	// The comparison inside the map is about hashes, whose bytes a client can't choose, so its time tells nothing.
	var buffer [MaxSecretBytes]byte
	n := copy(buffer[:], presented)
	key, ok := k.current.Load().byDigest[sha256.Sum256(buffer[:n])]
	switch {
	case !ok:
		return nil, Unknown
	case !key.Enabled:
		return nil, Disabled
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return nil, Expired
	}
	return key, OK
}

// Len is the number of keys, disabled and expired ones included.
func (k *Keys) Len() int { return len(k.current.Load().names) }

// Domains lists the domains bound to keys, sorted, each once.
func (k *Keys) Domains() []string {
	var domains []string
	for _, key := range k.current.Load().byDigest {
		if key.Domain != "" && !slices.Contains(domains, key.Domain) {
			domains = append(domains, key.Domain)
		}
	}
	slices.Sort(domains)
	return domains
}

// Credentials decides which key a request presents: the value of the key header, or the token of Authorization: Bearer. The outcome
// is OK, Missing, TooLong or, when both are there and differ, Ambiguous. Other schemes of Authorization aren't ours and don't count.
func Credentials(header, authorization string) (string, Outcome) {
	header = strings.Trim(header, " \t")
	bearer := bearerToken(authorization)
	presented := header
	switch {
	case header == "" && bearer == "":
		return "", Missing
	case header == "":
		presented = bearer
	case bearer != "" && bearer != header:
		return "", Ambiguous
	}
	if len(presented) > MaxSecretBytes {
		return "", TooLong
	}
	return presented, OK
}

func bearerToken(authorization string) string {
	scheme, token, ok := strings.Cut(strings.Trim(authorization, " \t"), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.Trim(token, " \t")
}
