package link

import (
	"testing"
)

func TestRecentKeysForgetTheOldest(t *testing.T) {
	var r recentKeys
	n := uint64(len(r.keys))
	for id := range 2 * n {
		r.add(attemptKey{id + 1, 1})
		r.add(attemptKey{id + 1, 1})
	}
	if len(r.index) != int(n) {
		t.Errorf("keeps %d", len(r.index))
	}
	if r.take(attemptKey{n, 1}) || !r.take(attemptKey{n + 1, 1}) || r.take(attemptKey{n + 1, 1}) || !r.take(attemptKey{2 * n, 1}) {
		t.Error("kept the wrong ones")
	}
}
