package inflight

// state of one request at the request table.
type state uint8

const (
	queued    state = iota // waits to be sent for the first time
	sent                   // at an engine, which hasn't accepted it yet
	streaming              // accepted by the engine it is at
	waiting                // its engine is gone; waits to be sent again
	suspect                // the same, and it must go alone, since it was there at two deaths
	done                   // Result or Err is final
	states
)

var stateNames = [states]string{"queued", "sent", "streaming", "waiting", "suspect", "done"}

func (s state) String() string { return stateNames[s] }

// happening is what moves a request from one state to another.
type happening uint8

const (
	released happening = iota // handed to an engine
	accepted                  // the engine took it
	lost                      // the engine is gone, or gave it back
	struck                    // a second death has it as a possible cause
	ended                     // result, error or cancel
	happenings
)

// moves is the whole state machine; what isn't in it doesn't happen.
var moves = [states][happenings]state{
	queued:    {released: sent, accepted: none, lost: none, struck: none, ended: done},
	sent:      {released: none, accepted: streaming, lost: waiting, struck: none, ended: done},
	streaming: {released: none, accepted: none, lost: waiting, struck: none, ended: done},
	waiting:   {released: sent, accepted: none, lost: none, struck: suspect, ended: done},
	suspect:   {released: sent, accepted: none, lost: none, struck: suspect, ended: done},
	done:      {released: none, accepted: none, lost: none, struck: none, ended: none},
}

// none marks a move that doesn't exist.
const none = states

// after gives the next state, or false when h can't happen in s.
func (s state) after(h happening) (state, bool) {
	next := moves[s][h]
	if next == none {
		return s, false
	}
	return next, true
}

// atEngine tells whether an engine works on the request.
func (s state) atEngine() bool { return s == sent || s == streaming }
