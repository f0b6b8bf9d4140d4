package inflight

import "testing"

func TestMoves(t *testing.T) {
	allowed := map[state]map[happening]state{
		queued:    {released: sent, ended: done},
		sent:      {accepted: streaming, lost: waiting, ended: done},
		streaming: {lost: waiting, ended: done},
		waiting:   {released: sent, struck: suspect, ended: done},
		suspect:   {released: sent, struck: suspect, ended: done},
		done:      {},
	}
	for s := range states {
		for h := range happenings {
			want, ok := allowed[s][h]
			if !ok {
				want = s
			}
			if got, moved := s.after(h); got != want || moved != ok {
				t.Errorf("%v after %d: %v (%v), want %v (%v)", s, h, got, moved, want, ok)
			}
		}
	}
}

func TestLifeWithARestart(t *testing.T) {
	s := queued
	for i, step := range []struct {
		h    happening
		want state
	}{{released, sent}, {accepted, streaming}, {lost, waiting}, {released, sent}, {lost, waiting}, {struck, suspect}, {released, sent},
		{accepted, streaming}, {ended, done}} {
		next, ok := s.after(step.h)
		if !ok || next != step.want {
			t.Fatalf("step %d: %v, want %v", i, next, step.want)
		}
		s = next
	}
}
