package batch

// sharedCells knows which cells belong to several slots, since in a cache for all sequences a copied beginning takes no
// cells of its own. What two slots share is always a beginning of both.
type sharedCells struct {
	slots    int
	common   []int // common[a*slots+b]: how many cells slots a and b share
	repeated int   // how often cells are counted too much in the sum of what all slots hold
	changes  int   // of common

	// What repeatedAsBefore found last, and for what.
	lastSome     []bool // by slot
	lastChanges  int
	lastRepeated int
}

func newSharedCells(slots int) sharedCells {
	return sharedCells{slots: slots, common: make([]int, slots*slots), lastSome: make([]bool, slots)}
}

// between is how many cells two slots share.
func (c *sharedCells) between(a, b int) int { return c.common[a*c.slots+b] }

// copied notes that an empty slot got the first cells of another one.
func (c *sharedCells) copied(from, to, cells int) {
	for i := range c.slots {
		c.set(i, to, min(cells, c.between(from, i)))
	}
	c.set(from, to, cells)
	c.changes++
	c.repeated = c.repeatedIn(func(int) bool { return true })
}

// cut notes that a slot has only its first cells left.
func (c *sharedCells) cut(at, cells int) {
	changed := false
	for i := range c.slots {
		if c.between(at, i) > cells {
			c.set(at, i, cells)
			changed = true
		}
	}
	if changed {
		c.changes++
		c.repeated = c.repeatedIn(func(int) bool { return true })
	}
}

func (c *sharedCells) set(a, b, cells int) {
	c.common[a*c.slots+b], c.common[b*c.slots+a] = cells, cells
}

// repeatedIn is how often cells are counted too much in the sum of what some slots hold: of each slot those that one
// before it has as well. With beginnings these are as many as the one that shares most has.
func (c *sharedCells) repeatedIn(some func(slot int) bool) int {
	n := 0
	for i := range c.slots {
		if some(i) {
			n += c.mostBefore(i, i, some)
		}
	}
	return n
}

// repeatedAsBefore is repeatedIn for what is asked again and again with the same slots: every step of an executor asks
// several times.
func (c *sharedCells) repeatedAsBefore(some func(slot int) bool) int {
	same := c.lastChanges == c.changes
	for i := range c.slots {
		if in := some(i); in != c.lastSome[i] {
			c.lastSome[i], same = in, false
		}
	}
	if !same {
		c.lastChanges, c.lastRepeated = c.changes, c.repeatedIn(some)
	}
	return c.lastRepeated
}

// most is how many cells of a slot one of some others has as well.
func (c *sharedCells) most(at int, some func(slot int) bool) int {
	return c.mostBefore(c.slots, at, some)
}

// mostBefore is the same with the slots before end alone.
func (c *sharedCells) mostBefore(end, at int, some func(slot int) bool) int {
	n := 0
	for i, cells := range c.common[at*c.slots : at*c.slots+end] {
		if cells > n && some(i) {
			n = cells
		}
	}
	return n
}
