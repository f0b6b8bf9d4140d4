package batch

// roundRobin is deficit round robin over keys that come and go: the adapters of a base (cost in tokens), the bases of a
// device (cost in measured nanoseconds). A key keeps its turn until it has spent its quantum; what it overspent is
// taken from its next turn.
type roundRobin[K comparable] struct {
	ring    []activeKey[K] // in the order of their turns; only keys that had work at the last pick
	current int            // whose turn it is; meaningless while ring is empty
}

type activeKey[K comparable] struct {
	key    K
	credit int64
}

// candidate is a key that has work now, and the cost that it may spend in a turn.
type candidate[K comparable] struct {
	key     K
	quantum int64
}

// pick returns the key whose turn it is. Keys that have no work lose their place and their credit or debt.
func (r *roundRobin[K]) pick(ready []candidate[K]) (K, bool) {
	var none K
	if len(ready) == 0 {
		r.ring, r.current = r.ring[:0], 0
		return none, false
	}
	kept := r.dropIdle(ready)
	for _, c := range ready {
		if r.find(c.key) < 0 {
			r.ring = append(r.ring, activeKey[K]{key: c.key})
		}
	}
	if len(ready) == 1 {
		r.current, r.ring[0].credit = 0, ready[0].quantum
		return ready[0].key, true
	}
	if !kept || r.ring[r.current].credit <= 0 {
		if kept {
			r.current++
		}
		r.current %= len(r.ring)
		r.startTurn(ready)
	}
	return r.ring[r.current].key, true
}

// startTurn gives the current key its quantum. Debt is forgiven beyond one quantum, so every turn has at least one
// step.
func (r *roundRobin[K]) startTurn(ready []candidate[K]) {
	cur := &r.ring[r.current]
	for _, c := range ready {
		if c.key == cur.key {
			cur.credit = min(max(cur.credit+c.quantum, 1), c.quantum)
		}
	}
}

// charge subtracts a cost from the credit of the key picked last.
func (r *roundRobin[K]) charge(cost int64) {
	if len(r.ring) > 0 {
		r.ring[r.current].credit -= cost
	}
}

// endTurn ends the turn of the key picked last.
func (r *roundRobin[K]) endTurn() {
	if len(r.ring) > 0 {
		r.ring[r.current].credit = min(r.ring[r.current].credit, 0)
	}
}

// dropIdle drops the keys that have no work and reports whether the current one is still there; if not, the one after
// it is current.
func (r *roundRobin[K]) dropIdle(ready []candidate[K]) bool {
	kept, n, at := false, 0, 0
	for i, k := range r.ring {
		has := false
		for _, c := range ready {
			has = has || c.key == k.key
		}
		if i == r.current {
			kept, at = has, n
		}
		if has {
			r.ring[n] = k
			n++
		}
	}
	clear(r.ring[n:])
	r.ring, r.current = r.ring[:n], at
	return kept
}

func (r *roundRobin[K]) find(key K) int {
	for i := range r.ring {
		if r.ring[i].key == key {
			return i
		}
	}
	return -1
}
