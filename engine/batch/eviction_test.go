package batch

import (
	"slices"
	"testing"
)

// endWith lets a request of these tokens end, in the slot that the scheduler gives it.
func (st *schedulerTest) endWith(a Adapter, tokens []Token) {
	st.t.Helper()
	q := st.submitTokens(a, tokens, 1)
	for q.stage != stageEnded {
		if !st.step() {
			st.t.Fatal("the request doesn't end")
		}
	}
}

// conversation is what one has beside the system text: its number, then tokens that no other has.
func conversation(number, tokens int) []Token { return tokensFrom(Token(number)<<16, tokens) }

func TestTheOldestConversationGivesWay(t *testing.T) {
	system := tokensFrom(5000, 40)
	talk := func(number, tokens int) []Token { return slices.Concat(system, conversation(number, tokens)) }
	three := Limits{Cells: 2000, Sequences: 3, SequenceMax: 500, StepTokens: 500, Prefix: true}
	few := three
	few.Cells = 200
	streams := three
	streams.Cells, streams.StreamCells, streams.CopyTokens = 1500, 500, 20
	slowCopies := streams
	slowCopies.CopyTokens = 41
	one := &fakeAdapter{"one"}
	type ended struct {
		adapter Adapter
		tokens  []Token
	}
	for name, tc := range map[string]struct {
		limits Limits
		ended  []ended
		next   []Token
		want   admission
		whole  [][]Token // what is kept besides
	}{
		"a free slot is taken first": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}}, talk(3, 20),
			admission{slot: 2, copyCells: 40}, [][]Token{talk(1, 20), talk(2, 20)},
		},
		"the oldest of equals": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, talk(4, 20),
			admission{slot: 0, keepCells: 40}, [][]Token{talk(2, 20), talk(3, 20)},
		},
		"the first one went on meanwhile": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}, {nil, talk(1, 30)}}, talk(4, 20),
			admission{slot: 1, keepCells: 40}, [][]Token{talk(3, 20), talk(1, 30)},
		},
		"the oldest has nothing in common": {
			three, []ended{{one, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, talk(4, 20),
			admission{slot: 0, copyCells: 40, copyFrom: 1}, [][]Token{talk(2, 20), talk(3, 20)},
		},
		"a branch of the newest": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, slices.Concat(talk(3, 12), conversation(9, 5)),
			admission{slot: 0, copyCells: 52, copyFrom: 2}, [][]Token{talk(2, 20), talk(3, 20)},
		},
		"a conversation goes on": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, talk(3, 30),
			admission{slot: 2, keepCells: 60}, [][]Token{talk(1, 20), talk(2, 20)},
		},
		"a conversation goes on, but for the end of an answer": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, slices.Concat(talk(3, 13), conversation(9, 20)),
			admission{slot: 2, keepCells: 53}, [][]Token{talk(1, 20), talk(2, 20)},
		},
		"a short question follows another one": {
			three, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 5)}}, talk(4, 5),
			admission{slot: 2, keepCells: 40}, [][]Token{talk(1, 20), talk(2, 20)},
		},
		"hardly a cell is free": {
			few, []ended{{nil, talk(1, 20)}, {nil, talk(2, 80)}}, slices.Concat(talk(2, 60), conversation(9, 5)),
			admission{slot: 2, copyCells: 100, copyFrom: 1}, [][]Token{talk(1, 20), talk(2, 80)},
		},
		"streams: the oldest of equals": {
			streams, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}, {nil, talk(1, 30)}}, talk(4, 20),
			admission{slot: 1, keepCells: 40}, [][]Token{talk(3, 20), talk(1, 30)},
		},
		"streams: the oldest has nothing in common": {
			streams, []ended{{one, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, talk(4, 20),
			admission{slot: 0, copyCells: 40, copyFrom: 1}, [][]Token{talk(2, 20), talk(3, 20)},
		},
		"streams: too little for a copy": {
			slowCopies, []ended{{one, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 20)}}, talk(4, 20),
			admission{slot: 0}, [][]Token{talk(2, 20), talk(3, 20)},
		},
		"streams: too little more than the oldest has": {
			streams, []ended{{nil, talk(1, 20)}, {nil, talk(2, 20)}, {nil, talk(3, 40)}}, slices.Concat(talk(3, 19), conversation(9, 5)),
			admission{slot: 0, keepCells: 40}, [][]Token{talk(2, 20), talk(3, 40)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSchedulerTest(t, tc.limits)
			for _, e := range tc.ended {
				st.endWith(e.adapter, e.tokens)
			}
			q := st.submitTokens(nil, tc.next, 5)
			a, ok := st.scheduler.admit()
			a.seq, a.first = nil, false
			if !ok || a != tc.want || q.cached != tc.want.keepCells+tc.want.copyCells {
				t.Errorf("%+v (%d reported), want %+v", a, q.cached, tc.want)
			}
			for _, want := range tc.whole {
				if !slices.ContainsFunc(st.scheduler.slots, func(sl slot) bool { return slices.Equal(sl.keptTokens, want) }) {
					t.Errorf("a conversation of %d tokens (%d …) isn't kept", len(want), want[len(want)-1])
				}
			}
		})
	}
}

// Two users talk by turns beside conversations that nobody goes on with: each finds all that was said before.
func TestConversationsByTurns(t *testing.T) {
	for _, limits := range []Limits{
		{Cells: 1 << 16, Sequences: 32, SequenceMax: 2000, StepTokens: 512, Prefix: true},
		{Cells: 32 * 2000, StreamCells: 2000, Sequences: 32, SequenceMax: 2000, StepTokens: 512, Prefix: true, CopyTokens: 20},
	} {
		f, sink := newFakeRunner(limits), newRecordingSink(t)
		e := startExecutor(t, f, Options{})
		system, id := prompt(7, 100), uint64(0)
		ask := func(tokens []Token) *recordedAnswer {
			id++
			r := sink.request(id, tokens, 10)
			submit(t, e, r)
			a := sink.wait(id)
			checkAnswer(t, r, a)
			return a
		}
		for n := range 32 {
			ask(slices.Concat(system, []Token{Token(1 + n)}, prompt(100+n, 30)))
		}
		users := [][]Token{slices.Concat(system, []Token{40}, prompt(1000, 20)), slices.Concat(system, []Token{41}, prompt(2000, 20))}
		for turn := range 6 {
			for u, said := range users {
				a := ask(said)
				if want := len(said) - 20 - 1; turn > 0 && a.summary.CachedTokens < want {
					t.Errorf("turn %d of user %d: %d of %d tokens are cached, want %d", turn, u, a.summary.CachedTokens, len(said), want)
				}
				users[u] = slices.Concat(said, a.tokens, prompt(3000+10*u+turn, 20))
			}
		}
	}
}

// One that only waits doesn't clear what it may have to go on from: its leader may not get that far.
func TestWaitingDoesNotClearItsOwnBeginning(t *testing.T) {
	system, text := tokensFrom(5000, 40), tokensFrom(9000, 200)
	st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 3, SequenceMax: 1000, StepTokens: 50, Prefix: true})
	st.endWith(nil, slices.Concat(system, conversation(1, 20)))
	st.endWith(nil, conversation(2, 20))
	leader := st.submitTokens(nil, slices.Concat(system, text, conversation(3, 5)), 5)
	st.step()
	q := st.submitTokens(nil, slices.Concat(system, text, conversation(4, 5)), 5)
	st.step()
	if leader.stage != stageReady || leader.decoding() || q.stage != stageAwaiting {
		t.Fatalf("leader %+v, the other %+v", leader, q)
	}
	st.scheduler.preempt(leader, &st.plan)
	if a, ok := st.scheduler.admit(); !ok || a.seq != q || a.copyCells != len(system) || q.cached != len(system) {
		t.Errorf("after its leader gave way: %+v", a)
	}
}
