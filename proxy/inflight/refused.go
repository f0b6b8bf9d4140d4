package inflight

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"tandem/proxy/api"
)

// fingerprint of a request: what decides what the engine does with it.
type fingerprint [sha256.Size]byte

func fingerprintOf(model, version string, r *api.Request) fingerprint {
	h := sha256.New()
	for _, part := range []string{model, version, r.Prompt, r.System, string(r.JSONSchema)} {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	if r.HasSystem && r.System == "" {
		h.Write([]byte("no system text"))
	}
	return fingerprint(h.Sum(nil))
}

// refusals are the requests and models that are refused for a while, since engines died of them. Both are bounded.
type refusals struct {
	requests map[fingerprint]time.Time // until when
	loads    map[pair]*loadDeaths
}

// loadDeaths of engines inside the load of one model.
type loadDeaths struct {
	count    int
	doubtful int       // may have had another cause; they are failures of the model once one was surely its own
	until    time.Time // forgotten then; with enough deaths, refused until then
}

func newRefusals() refusals {
	return refusals{requests: make(map[fingerprint]time.Time), loads: make(map[pair]*loadDeaths)}
}

// request tells whether a request like this one is refused.
func (r *refusals) request(model, version string, req *api.Request, now time.Time) bool {
	if len(r.requests) == 0 { // the usual case; a large prompt takes a while to hash
		return false
	}
	until, ok := r.requests[fingerprintOf(model, version, req)]
	return ok && now.Before(until)
}

// refuse keeps requests like this one out.
func (r *refusals) refuse(model, version string, req *api.Request, until time.Time) {
	if len(r.requests) < maxRefused {
		r.requests[fingerprintOf(model, version, req)] = until
	}
}

// died counts a death inside a load and tells how many failures of the model that makes known, and whether it is refused from now on. A
// death that may have had another cause (it isn't sure) counts once at most: it only makes the model shy.
func (r *refusals) died(p pair, sure bool, now time.Time, ttl time.Duration) (failures int, refused bool) {
	l := r.loads[p]
	if l == nil {
		l = &loadDeaths{}
		if len(r.loads) < maxRefused {
			r.loads[p] = l
		}
	}
	l.until = now.Add(ttl)
	if !sure {
		l.count = max(l.count, 1)
		l.doubtful++
		return 0, false
	}
	l.count = l.count + 1
	failures, l.doubtful = l.doubtful+1, 0
	return failures, l.count >= loadDeathsAt
}

// loaded forgets the deaths inside a load: this one went well.
func (r *refusals) loaded(p pair) { delete(r.loads, p) }

// load tells for how long a model is still refused; 0: it isn't.
func (r *refusals) load(p pair, now time.Time) time.Duration {
	l := r.loads[p]
	if l == nil || l.count < loadDeathsAt {
		return 0
	}
	return max(0, l.until.Sub(now))
}

// shy tells whether an engine may have died in a load of that model and none has succeeded since.
func (r *refusals) shy(p pair) bool { return r.loads[p] != nil }

// sweep forgets what is over.
func (r *refusals) sweep(now time.Time) {
	for f, until := range r.requests {
		if !now.Before(until) {
			delete(r.requests, f)
		}
	}
	for p, l := range r.loads {
		if !now.Before(l.until) {
			delete(r.loads, p)
		}
	}
}
