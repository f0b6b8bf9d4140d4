package inflight

import "testing"

// TestReadyWhenThereIsSomethingToDo: the goroutine of a request is woken when it can write something, not for every token that arrives.
func TestReadyWhenThereIsSomethingToDo(t *testing.T) {
	ready := func(a Answer) bool {
		select {
		case <-a.Ready():
			return true
		default:
			return false
		}
	}
	for name, streams := range map[string]bool{"in one piece": false, "streamed": true} {
		inBubble(t, Options{}, func(t *testing.T, b *bench) {
			f := b.attach(LastExit{})
			a := b.admit(func(r *Request) { r.Infer.Stream = streams })
			s := f.last(t)
			b.accept(f, s)
			for i := range 3 {
				b.token(f, s, i)
				if ready(a) != streams {
					t.Errorf("%s: ready after token %d: %v", name, i, !streams)
				}
			}
			b.lose(f)
			f = b.attach(LastExit{})
			s = f.last(t)
			b.accept(f, s)
			b.token(f, s, 3)
			if !ready(a) {
				t.Errorf("%s: not ready with the first token of another engine", name)
			}
			b.stop(f, s, 4)
			if !ready(a) {
				t.Errorf("%s: not ready at its end", name)
			}
			b.want(a, "abcd", "", true)
			a.Settle(Delivered)
		})
	}
}
