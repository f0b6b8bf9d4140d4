package inflight

// state of one request in the table.
type state uint8

const (
	queued    state = iota // waits to be sent for the first time
	sent                   // at an engine that hasn't accepted it yet
	streaming              // accepted by the engine it is at
	waiting                // its engine is gone; waits to be sent again
	suspect                // the same, and it must be sent alone, since it may have caused two crashes
	done                   // Result or Err is final
	stateCount
)

var stateNames = [stateCount]string{"queued", "sent", "streaming", "waiting", "suspect", "done"}

func (s state) String() string { return stateNames[s] }

// transition is what moves a request from one state to another.
type transition uint8

const (
	dispatched transition = iota // sent to an engine
	accepted                     // the engine took it
	lost                         // the engine is gone, or gave it back
	suspected                    // a second crash has it as a possible cause
	ended                        // result, error or cancel
	transitionCount
)

// transitions is the whole state machine: the next state for each state and transition.
var transitions = [stateCount][transitionCount]state{
	queued:    {dispatched: sent, accepted: impossible, lost: impossible, suspected: impossible, ended: done},
	sent:      {dispatched: impossible, accepted: streaming, lost: waiting, suspected: impossible, ended: done},
	streaming: {dispatched: impossible, accepted: impossible, lost: waiting, suspected: impossible, ended: done},
	waiting:   {dispatched: sent, accepted: impossible, lost: impossible, suspected: suspect, ended: done},
	suspect:   {dispatched: sent, accepted: impossible, lost: impossible, suspected: suspect, ended: done},
	done:      {dispatched: impossible, accepted: impossible, lost: impossible, suspected: impossible, ended: impossible},
}

// impossible marks a transition that doesn't exist in a state.
const impossible = stateCount

// next returns the state after a transition, or false when the transition doesn't exist in s.
func (s state) next(tr transition) (state, bool) {
	next := transitions[s][tr]
	if next == impossible {
		return s, false
	}
	return next, true
}

// atEngine reports whether the request is at an engine.
func (s state) atEngine() bool { return s == sent || s == streaming }
