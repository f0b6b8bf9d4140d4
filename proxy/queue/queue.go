// Package queue decides who waits, who is refused and who goes next. It holds ids, no requests; it knows no goroutine and no clock:
// times are passed in. First come, first served within a base; a base without credit holds up no other.
package queue

import (
	"cmp"
	"slices"
	"time"
)

// Class orders what waits: every Replay goes before every Suspect, that before every Fresh one.
type Class uint8

// Classes. A replay was accepted before and is never refused; a suspect is a replay that must go alone.
const (
	Replay Class = iota
	Suspect
	Fresh
	classes
)

// Item is one waiting request.
type Item struct {
	ID       uint64
	Order    uint64 // of admission; lower goes first within its class
	Class    Class
	Base     string // the base model whose credit it needs; "" while that isn't known
	Version  string
	Bytes    int64     // memory that it holds while it waits
	Deadline time.Time // zero: none
}

// Refusal says why Push refused.
type Refusal uint8

// Refusals. Taken is zero: the item waits.
const (
	Taken Refusal = iota
	FullItems
	FullBytes
)

// Verdict is a caller's answer to whether an item may go now.
type Verdict uint8

// Verdicts: it goes; its base has no credit, try others; nothing may go until this one went; it doesn't go now, try who is behind it.
const (
	Go Verdict = iota
	Skip
	Hold
	Pass
)

// Limits of what waits. Replays and suspects count, but are never refused.
type Limits struct {
	Items int
	Bytes int64
}

// Queue of waiting requests. It is not safe for concurrent use; its owner holds a lock.
type Queue struct {
	limits Limits
	items  map[uint64]*node
	bytes  int64
	lines  [classes]map[string]*line // by base; no line is empty
}

// node of a line's list.
type node struct {
	Item
	prev, next *node
}

// line is what waits for one base in one class, ordered by Item.Order.
type line struct{ first, last *node }

// New makes an empty queue.
func New(limits Limits) *Queue {
	q := &Queue{limits: limits, items: make(map[uint64]*node)}
	for c := range q.lines {
		q.lines[c] = make(map[string]*line)
	}
	return q
}

// Len is the number of waiting items.
func (q *Queue) Len() int { return len(q.items) }

// Bytes that the waiting items hold.
func (q *Queue) Bytes() int64 { return q.bytes }

// Has tells whether anything of a class waits.
func (q *Queue) Has(c Class) bool { return len(q.lines[c]) > 0 }

// HasBase tells whether anything of a class waits for base.
func (q *Queue) HasBase(c Class, base string) bool {
	_, ok := q.lines[c][base]
	return ok
}

// Push appends an item or says why there is no room. An id that waits already is left where it is.
func (q *Queue) Push(it Item) Refusal {
	if _, ok := q.items[it.ID]; ok {
		return Taken
	}
	if it.Class == Fresh {
		if len(q.items) >= q.limits.Items {
			return FullItems
		}
		if q.bytes+it.Bytes > q.limits.Bytes {
			return FullBytes
		}
	}
	n := &node{Item: it}
	q.items[it.ID] = n
	q.bytes += it.Bytes
	l := q.lines[it.Class][it.Base]
	if l == nil {
		l = &line{}
		q.lines[it.Class][it.Base] = l
	}
	l.insert(n)
	return Taken
}

// Remove takes an item out, wherever it stands.
func (q *Queue) Remove(id uint64) (Item, bool) {
	n, ok := q.items[id]
	if !ok {
		return Item{}, false
	}
	delete(q.items, id)
	q.bytes -= n.Bytes
	l := q.lines[n.Class][n.Base]
	l.remove(n)
	if l.first == nil {
		delete(q.lines[n.Class], n.Base)
	}
	return n.Item, true
}

// Next takes out the first item that may go. allow is asked about the first item of each line, oldest first within a class, and decides
// for the whole line unless it says Pass.
func (q *Queue) Next(allow func(Item) Verdict) (Item, bool) {
	for c := range q.lines {
		for _, n := range q.heads(Class(c)) {
			verdict := allow(n.Item)
			for verdict == Pass && n.next != nil {
				n = n.next
				verdict = allow(n.Item)
			}
			switch verdict {
			case Go:
				return q.Remove(n.ID)
			case Hold:
				return Item{}, false
			}
		}
	}
	return Item{}, false
}

// heads are the first items of the lines of a class, oldest first.
func (q *Queue) heads(c Class) []*node {
	if len(q.lines[c]) == 0 {
		return nil
	}
	heads := make([]*node, 0, len(q.lines[c]))
	for _, l := range q.lines[c] {
		heads = append(heads, l.first)
	}
	slices.SortFunc(heads, func(a, b *node) int { return cmp.Compare(a.Order, b.Order) })
	return heads
}

// Expire takes out every item whose deadline has come, oldest first.
func (q *Queue) Expire(now time.Time) []Item {
	var late []Item
	for _, n := range q.items {
		if !n.Deadline.IsZero() && !now.Before(n.Deadline) {
			late = append(late, n.Item)
		}
	}
	return q.take(late)
}

// TakeBase takes out every item of a base, oldest first.
func (q *Queue) TakeBase(base string) []Item {
	var all []Item
	for _, n := range q.items {
		if n.Base == base {
			all = append(all, n.Item)
		}
	}
	return q.take(all)
}

// TakeAll empties the queue, oldest first.
func (q *Queue) TakeAll() []Item {
	all := make([]Item, 0, len(q.items))
	for _, n := range q.items {
		all = append(all, n.Item)
	}
	return q.take(all)
}

func (q *Queue) take(items []Item) []Item {
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.Order, b.Order) })
	for _, it := range items {
		q.Remove(it.ID)
	}
	return items
}

// insert keeps the order; what comes usually goes to the end, only a replay of an older request goes before others.
func (l *line) insert(n *node) {
	after := l.last
	for after != nil && after.Order > n.Order {
		after = after.prev
	}
	n.prev = after
	if after == nil {
		n.next, l.first = l.first, n
	} else {
		n.next, after.next = after.next, n
	}
	if n.next == nil {
		l.last = n
	} else {
		n.next.prev = n
	}
}

func (l *line) remove(n *node) {
	if n.prev == nil {
		l.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.last = n.prev
	} else {
		n.next.prev = n.prev
	}
}
