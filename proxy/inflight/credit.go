package inflight

import "tandem/proxy/queue"

// Bounds of what an engine gets before it has answered.
const (
	unloadedAhead  = 8       // requests at an engine for a base that it hasn't loaded yet
	replaysAhead   = 8       // replays of a base at a time before their first new token
	replayMaxBytes = 8 << 20 // replay frames at a time that the engine hasn't accepted yet
)

// credit is what decides whether an engine gets one more request.
type credit struct {
	sequences   int // that the base can decode at a time; 0: not loaded
	outstanding int // requests of the base at the engine

	tokenless   int  // requests of any base at the engine that got no token there
	suspectOut  bool // one of them is a suspect
	replaysOut  int  // replays of the base without a new token
	replayBytes int64
	itemBytes   int64 // what a replay adds to replayBytes

	replaysWait bool // replays of the base wait
	loading     bool // something else is being loaded
	shy         bool // an engine may have died of loading this model, and this would load it again
	othersWait  bool // replays of others could go
	othersThere bool // others are at the engine before their first token
	apart       bool // a shy load is under way, and this would begin another
}

// lookAhead is how many requests beyond its sequences a base gets, so that their prompts are tokenised when a place becomes free.
func lookAhead(sequences int) int { return 4 + sequences/8 }

// verdict decides about the first waiting request of a base and class.
func (c credit) verdict(class queue.Class) queue.Verdict {
	if c.suspectOut {
		return queue.Hold // whatever dies now is the suspect's doing
	}
	limit := unloadedAhead
	if c.sequences > 0 {
		limit = c.sequences + lookAhead(c.sequences)
	}
	full := c.outstanding >= limit || c.apart
	switch class {
	case queue.Suspect:
		if c.loading {
			return queue.Skip // or it would not be alone
		}
		if full || c.tokenless > 0 {
			return queue.Hold // others drain; it goes next, alone
		}
		return queue.Go
	case queue.Replay:
		if c.replaysOut >= replaysAhead || c.replayBytes > 0 && c.replayBytes+c.itemBytes > replayMaxBytes {
			return queue.Skip
		}
	default:
		if c.replaysWait {
			return queue.Skip
		}
	}
	switch {
	case full:
		return queue.Skip
	case c.shy && (c.othersWait || c.loading):
		return queue.Pass
	case c.shy && c.othersThere:
		return queue.Hold // not for long: they get their first token
	}
	return queue.Go
}
