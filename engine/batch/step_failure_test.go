package batch

import (
	"strings"
	"testing"
)

// A step that fails as a whole is bisected, so only the sequence at fault fails.
func TestOnlyTheGuiltySequenceFails(t *testing.T) {
	guilty := prompt(5, 9)
	whole := func(_ Adapter, slices []Slice) error {
		for _, s := range slices {
			if len(s.Tokens) == len(guilty) && s.Tokens[0] == guilty[0] && s.Tokens[8] == guilty[8] {
				return errBroken
			}
		}
		return nil
	}
	for name, set := range map[string]func(*fakeRunner){
		"the step fails": func(f *fakeRunner) { f.failStep = whole },
		"the slice fails": func(f *fakeRunner) {
			f.failSlice = func(_ int, tokens []Token) error { return whole(nil, []Slice{{Tokens: tokens}}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
			set(f)
			seen := &countingObserver{}
			e := startExecutor(t, f, Options{Observe: seen})
			var good []*Request
			for id := range uint64(7) {
				p := prompt(int(id)+20, 12)
				if id == 3 {
					submit(t, e, sink.request(id, guilty, 10))
					continue
				}
				good = append(good, sink.request(id, p, 30))
				submit(t, e, good[len(good)-1])
			}
			if a := sink.wait(3); a.summary.Failure.Code != FailDecode || !strings.Contains(a.summary.Failure.Message, "broken") {
				t.Errorf("guilty: %+v", a.summary)
			}
			for _, r := range good {
				checkAnswer(t, r, sink.wait(r.ID))
			}
			if seen.errors.Load() == 0 {
				t.Error("no decode error was counted")
			}
		})
	}
}
