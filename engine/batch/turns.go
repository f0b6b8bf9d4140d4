package batch

// turns is deficit round robin over keys that come and go: the adapters of a base (cost in tokens), the bases of a device (cost in
// measured nanoseconds). A key keeps its turn until it has spent its quantum; what it overspent is taken from its next turn.
type turns[K comparable] struct {
	ring []turn[K] // the order of turns; only keys that had work at the last pick
	at   int       // whose turn it is; meaningless while ring is empty
}

type turn[K comparable] struct {
	key    K
	credit int64
}

// contender is a key that has work now, and what it may spend in a turn.
type contender[K comparable] struct {
	key     K
	quantum int64
}

// pick says who goes next. Keys that have no work lose their place and their credit or debt.
func (t *turns[K]) pick(ready []contender[K]) (K, bool) {
	var none K
	if len(ready) == 0 {
		t.ring, t.at = t.ring[:0], 0
		return none, false
	}
	kept := t.keep(ready)
	for _, c := range ready {
		if t.find(c.key) < 0 {
			t.ring = append(t.ring, turn[K]{key: c.key})
		}
	}
	if len(ready) == 1 {
		t.at, t.ring[0].credit = 0, ready[0].quantum
		return ready[0].key, true
	}
	if !kept || t.ring[t.at].credit <= 0 {
		if kept {
			t.at++
		}
		t.at %= len(t.ring)
		t.begin(ready)
	}
	return t.ring[t.at].key, true
}

// begin gives the key at the front its quantum. Debt is forgiven beyond one quantum, so every turn has at least one step.
func (t *turns[K]) begin(ready []contender[K]) {
	cur := &t.ring[t.at]
	for _, c := range ready {
		if c.key == cur.key {
			cur.credit = min(max(cur.credit+c.quantum, 1), c.quantum)
		}
	}
}

// spend charges the key picked last.
func (t *turns[K]) spend(cost int64) {
	if len(t.ring) > 0 {
		t.ring[t.at].credit -= cost
	}
}

// pass ends the turn of the key picked last.
func (t *turns[K]) pass() {
	if len(t.ring) > 0 {
		t.ring[t.at].credit = min(t.ring[t.at].credit, 0)
	}
}

// keep drops the keys that have no work and tells whether the one at the front is still there; if not, at is the one after it.
func (t *turns[K]) keep(ready []contender[K]) bool {
	kept, n, at := false, 0, 0
	for i, r := range t.ring {
		has := false
		for _, c := range ready {
			has = has || c.key == r.key
		}
		if i == t.at {
			kept, at = has, n
		}
		if has {
			t.ring[n] = r
			n++
		}
	}
	clear(t.ring[n:])
	t.ring, t.at = t.ring[:n], at
	return kept
}

func (t *turns[K]) find(key K) int {
	for i := range t.ring {
		if t.ring[i].key == key {
			return i
		}
	}
	return -1
}
