package link

// recentKeys remembers the last keys that were added. It is small because a cancel comes only moments before its
// request.
type recentKeys struct {
	keys  [256]attemptKey
	next  int
	index map[attemptKey]int
}

func (r *recentKeys) add(k attemptKey) {
	if r.index == nil {
		r.index = make(map[attemptKey]int, len(r.keys))
	}
	if _, ok := r.index[k]; ok {
		return
	}
	if old := r.keys[r.next]; r.index[old] == r.next {
		delete(r.index, old)
	}
	r.keys[r.next], r.index[k] = k, r.next
	r.next = (r.next + 1) % len(r.keys)
}

func (r *recentKeys) take(k attemptKey) bool {
	i, ok := r.index[k]
	if ok {
		delete(r.index, k)
		r.keys[i] = attemptKey{}
	}
	return ok
}
