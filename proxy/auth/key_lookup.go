// Package auth authenticates requests: it holds the API keys by their SHA-256 hashes, finds the one that a client
// presents, and reloads the key file when it changes while the server runs. What a key may do is only data here:
// package limit counts requests, and package server rejects a model that the key may not use. It knows no HTTP library
// and never logs; results are returned, or reported to the caller of Watch.
//
//	API_KEYS_FILE ──parse──▶ keySet ──atomic pointer──▶ Lookup   (a file with a mistake leaves the set as it is)
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

// MaxSecretBytes is the length of the longest key that is accepted.
const MaxSecretBytes = 256

// ErrNoKeys is returned by Open when there is no key at all.
var ErrNoKeys = errors.New("no API keys: set API_KEYS_FILE (make an entry with: tandem-proxy keys new NAME) or API_KEYS=name:secret, or AUTH_DISABLED=true to let everybody in")

// Key is an API key without its secret. It is shared and must not be changed.
type Key struct {
	Name   string  // unique; the id under which requests are counted
	Domain string  // "" for none
	Rate   *Rate   // nil: the configured default
	Weight float64 // share of the engine against other keys; 0: 1
	// Concurrency is how many requests may be under way, and TokensPerMinute how many tokens they may take; 0: any.
	Concurrency     int
	TokensPerMinute int
	Models          []string  // nil: all
	Expires         time.Time // zero: never
	Enabled         bool
}

// Rate is a rate limit of a key of its own; it has the form of limit.Rate, so that one converts to the other. The zero
// Rate is no limit.
type Rate struct {
	Requests int
	Unit     time.Duration
}

// MayUse reports whether the key may ask for a model.
func (k *Key) MayUse(model string) bool { return k.Models == nil || slices.Contains(k.Models, model) }

// Outcome is the result of a look-up. Clients get the same 401 for all but OK; the log may distinguish them.
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

// Keys holds the current keys. Its methods are safe from any goroutine.
type Keys struct {
	options      Options
	fromVariable []entry // API_KEYS
	current      atomic.Pointer[keySet]
	fileState    fileState // owned by Open, then by Watch
}

// Lookup finds the key that a client presented. The key is nil unless the outcome is OK.
func (k *Keys) Lookup(presented string, now time.Time) (*Key, Outcome) {
	if presented == "" {
		return nil, Missing
	}
	if len(presented) > MaxSecretBytes {
		return nil, TooLong
	}
	// The comparison inside the map is about hashes, whose bytes a client can't choose, so its timing reveals nothing.
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

// Credentials decides which key a request presents: the value of the key header, or the token of Authorization: Bearer.
// The outcome is OK, Missing, TooLong or, when both are given and differ, Ambiguous. Other schemes of Authorization are
// ignored.
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
