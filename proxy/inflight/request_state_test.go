package inflight

import (
	"testing"
)

func TestTransitions(t *testing.T) {
	allowed := map[state]map[transition]state{
		queued:    {dispatched: sent, ended: done},
		sent:      {accepted: streaming, lost: waiting, ended: done},
		streaming: {lost: waiting, ended: done},
		waiting:   {dispatched: sent, suspected: suspect, ended: done},
		suspect:   {dispatched: sent, suspected: suspect, ended: done},
		done:      {},
	}
	for s := range stateCount {
		for tr := range transitionCount {
			want, ok := allowed[s][tr]
			if !ok {
				want = s
			}
			if got, moved := s.next(tr); got != want || moved != ok {
				t.Errorf("%v after %d: %v (%v), want %v (%v)", s, tr, got, moved, want, ok)
			}
		}
	}
}

func TestTransitionsOverARestart(t *testing.T) {
	s := queued
	for i, step := range []struct {
		tr   transition
		want state
	}{{dispatched, sent}, {accepted, streaming}, {lost, waiting}, {dispatched, sent}, {lost, waiting}, {suspected, suspect}, {dispatched, sent},
		{accepted, streaming}, {ended, done}} {
		next, ok := s.next(step.tr)
		if !ok || next != step.want {
			t.Fatalf("step %d: %v, want %v", i, next, step.want)
		}
		s = next
	}
}
