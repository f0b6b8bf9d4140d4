package inflight

import "tandem/proxy/queue"

// Bounds of what an engine is sent before it has answered.
const (
	maxSentWhileUnloaded = 8 // requests at an engine for a base that isn't loaded yet
	maxReplaysSent       = 8 // replays of a base at a time that have no new token yet
	// maxBacklogBytes bounds what waits to be written to an engine. A connection whose backlog overflows is closed, so
	// it is well below that: in a frame a text may take several times its bytes.
	maxBacklogBytes = 16 << 20
)

// credit is what decides whether an engine is sent one more request for a base.
type credit struct {
	sequences   int // that the base can decode at a time; 0: not loaded
	outstanding int // requests of the base at the engine

	awaitingFirstToken int  // requests of any base at the engine that have no token from it
	suspectSent        bool // one of them is a suspect
	replaysSent        int  // replays of the base that have no new token yet
	backlogBytes       int64
	itemBytes          int64 // what this request adds to backlogBytes

	contended             bool // several keys use the base
	keptFree              int  // sequences that this request mustn't take
	replaysWaiting        bool // replays of the base wait
	otherLoading          bool // another version is being loaded
	suspectLoad           bool // sending this would begin a load in which an engine may have crashed
	othersWaiting         bool // replays of other versions could go
	othersAwaitFirstToken bool // requests for other versions are at the engine without a token
	otherSuspectLoad      bool // a suspect load is under way, and sending this would begin another load
}

// lookAhead is how many requests beyond its sequences a base is sent, so that their prompts are already tokenised when
// a sequence becomes free.
func lookAhead(sequences int) int { return 4 + sequences/8 }

// contendedLookAhead is the same while several keys use the base. What is at the engine is served in the order in which
// it came, so a key that is served next has to wait for all of it.
func contendedLookAhead(sequences int) int { return sequences / 16 }

// mostKeptFree is how many sequences are kept free for keys whose requests are due as soon as they come: they would
// wait for the end of somebody's answer. Where a base has few sequences, keeping one would cost too much.
func mostKeptFree(sequences int) int { return sequences / 16 }

// isFull reports whether a loaded base has as many requests as it is sent at a time. othersWait: for this base, so that
// what isn't in use is kept free.
func (b baseCounts) isFull(othersWait bool) bool {
	most := b.sequences
	if othersWait {
		most -= mostKeptFree(b.sequences)
	}
	return b.sequences > 0 && b.outstanding >= most
}

// verdict decides whether a waiting request of that class may go.
func (c credit) verdict(class queue.Class) queue.Verdict {
	if c.suspectSent {
		return queue.StopAll // if the engine crashes now, it was the suspect
	}
	limit := maxSentWhileUnloaded
	switch {
	case c.sequences == 0:
	case c.keptFree > 0:
		limit = c.sequences - c.keptFree
	case c.contended:
		limit = c.sequences + contendedLookAhead(c.sequences)
	default:
		limit = c.sequences + lookAhead(c.sequences)
	}
	tooManyBytes := c.backlogBytes > 0 && c.backlogBytes+c.itemBytes > maxBacklogBytes
	full := c.outstanding >= limit || c.otherSuspectLoad || tooManyBytes
	switch class {
	case queue.Suspect:
		if c.otherLoading {
			return queue.SkipBase // or it wouldn't be alone
		}
		if full || c.awaitingFirstToken > 0 {
			return queue.StopAll // the others get their first tokens; then it goes, alone
		}
		return queue.Dispatch
	case queue.Replay:
		if c.replaysSent >= maxReplaysSent {
			return queue.SkipBase
		}
	default:
		if c.replaysWaiting {
			return queue.SkipBase
		}
	}
	switch {
	case full:
		return queue.SkipBase
	case c.suspectLoad && (c.othersWaiting || c.otherLoading):
		return queue.SkipItem
	case c.suspectLoad && c.othersAwaitFirstToken:
		return queue.StopAll // not for long: the others get their first tokens
	}
	return queue.Dispatch
}
