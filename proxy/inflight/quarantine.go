package inflight

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
	"time"

	"tandem/proxy/api"
)

// fingerprint is a hash of everything in a request that decides what the engine does with it, but for its seed and the
// length of its answer: those may be others whenever it is sent.
type fingerprint [sha256.Size]byte

func fingerprintOf(model, version string, r *api.Request) fingerprint {
	h := fingerprintHash{sha256.New()}
	h.add(model, version, r.Prompt, r.System, string(r.JSONSchema), r.Grammar, string(r.TemplateOptions), r.ToolChoice.Name)
	h.flags(r.Raw, r.HasSystem, r.SplitOutput, r.ParallelToolCalls, r.Logprobs, r.PromptLogprobs, r.IgnoreEnd, r.PlainSampling)
	h.numbers(int(r.Task), int(r.ToolChoice.Mode), len(r.Messages), len(r.Tools), len(r.PromptTokens), len(r.Stop), len(r.LogitBias), r.TopLogprobs)
	h.floats(r.Temperature, r.TopP, r.MinP, r.RepeatPenalty, r.PresencePenalty, r.FrequencyPenalty)
	if h.flags(r.TopK != nil); r.TopK != nil {
		h.numbers(*r.TopK)
	}
	h.add(r.Stop...)
	for _, b := range r.LogitBias {
		h.numbers(int(b.Token), int(math.Float32bits(b.Bias)))
	}
	for i := range r.Messages {
		m := &r.Messages[i]
		h.add(m.Role, m.Content, m.Reasoning, m.Name, m.ToolCallID)
		h.numbers(len(m.ToolCalls))
		for _, c := range m.ToolCalls {
			h.add(c.ID, c.Name, c.Arguments)
		}
	}
	for _, tool := range r.Tools {
		h.add(tool.Name, tool.Description, string(tool.Parameters))
		h.flags(tool.Strict)
	}
	for _, t := range r.PromptTokens {
		h.numbers(int(t))
	}
	return fingerprint(h.Sum(nil))
}

// fingerprintHash writes values so that different ones never give the same bytes.
type fingerprintHash struct{ hash.Hash }

func (h fingerprintHash) add(texts ...string) {
	for _, s := range texts {
		h.numbers(len(s))
		h.Write([]byte(s))
	}
}

func (h fingerprintHash) numbers(list ...int) {
	for _, n := range list {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
}

func (h fingerprintHash) flags(list ...bool) {
	for _, f := range list {
		n := 0
		if f {
			n = 1
		}
		h.numbers(n)
	}
}

// floats writes values of which any may be missing.
func (h fingerprintHash) floats(list ...*float32) {
	for _, f := range list {
		if h.flags(f != nil); f != nil {
			h.numbers(int(math.Float32bits(*f)))
		}
	}
}

// quarantine holds the requests and models that are refused for a while because they crashed engines. Both lists are
// bounded.
type quarantine struct {
	requests map[fingerprint]time.Time // when the quarantine ends
	loads    map[modelVersion]*loadCrashes
}

// loadCrashes are the crashes of engines inside the load of one model.
type loadCrashes struct {
	count int
	// crashes that may have had another cause; they count as load failures once one certainly was the load's
	ambiguous int
	until     time.Time // forgotten then; with enough crashes, refused until then
}

func newQuarantine() quarantine {
	return quarantine{requests: make(map[fingerprint]time.Time), loads: make(map[modelVersion]*loadCrashes)}
}

// blocksRequest reports whether a request like this one is refused.
func (q *quarantine) blocksRequest(model, version string, req *api.Request, now time.Time) bool {
	if len(q.requests) == 0 { // the usual case; a large prompt takes a while to hash
		return false
	}
	until, ok := q.requests[fingerprintOf(model, version, req)]
	return ok && now.Before(until)
}

// addRequest has requests like this one refused until then.
func (q *quarantine) addRequest(model, version string, req *api.Request, until time.Time) {
	if len(q.requests) < maxQuarantined {
		q.requests[fingerprintOf(model, version, req)] = until
	}
}

// recordLoadCrash counts a crash inside a load. It returns how many load failures of the model are certain now that
// weren't before, and whether the model is quarantined. A crash that may have had another cause (certain is false)
// counts once at most: it only makes the load a suspect.
func (q *quarantine) recordLoadCrash(mv modelVersion, certain bool, now time.Time, ttl time.Duration) (failures int, quarantined bool) {
	l := q.loads[mv]
	if l == nil {
		l = &loadCrashes{}
		if len(q.loads) < maxQuarantined {
			q.loads[mv] = l
		}
	}
	l.until = now.Add(ttl)
	if !certain {
		l.count = max(l.count, 1)
		l.ambiguous++
		return 0, false
	}
	l.count = l.count + 1
	failures, l.ambiguous = l.ambiguous+1, 0
	return failures, l.count >= quarantineAfterLoadCrashes
}

// loadSucceeded forgets the crashes inside a model's load.
func (q *quarantine) loadSucceeded(mv modelVersion) { delete(q.loads, mv) }

// modelBlockedFor returns for how long a model is still refused; 0: it isn't.
func (q *quarantine) modelBlockedFor(mv modelVersion, now time.Time) time.Duration {
	l := q.loads[mv]
	if l == nil || l.count < quarantineAfterLoadCrashes {
		return 0
	}
	return max(0, l.until.Sub(now))
}

// isSuspectLoad reports whether an engine may have crashed in a load of that model, and none has succeeded since.
func (q *quarantine) isSuspectLoad(mv modelVersion) bool { return q.loads[mv] != nil }

// removeExpired forgets what is over.
func (q *quarantine) removeExpired(now time.Time) {
	for f, until := range q.requests {
		if !now.Before(until) {
			delete(q.requests, f)
		}
	}
	for mv, l := range q.loads {
		if !now.Before(l.until) {
			delete(q.loads, mv)
		}
	}
}
