// Package queue holds the ids of requests that wait for an engine: it bounds their number, bytes and work, and decides
// which one may go next. Within a base model it is first come, first served; a base without credit holds up no other.
// The package holds no requests, starts no goroutine and reads no clock: times are passed in.
package queue

import (
	"cmp"
	"slices"
	"time"
)

// Class orders what waits: every Replay goes before every Suspect, that before every Fresh one.
type Class uint8

// Classes. A replay was admitted before and is never refused; a suspect is a replay that must go alone.
const (
	Replay Class = iota
	Suspect
	Fresh
	classCount
)

// Item is one waiting request.
type Item struct {
	ID       uint64
	Order    uint64 // of admission; lower goes first within its class
	Class    Class
	Base     string // the base model whose credit it needs; "" while that isn't known
	Version  string
	Bytes    int64     // memory that it takes while it waits
	Work     int64     // that an engine will have with it, in prompt tokens
	Deadline time.Time // zero: none
}

// PushResult says whether Push queued an item, or why not.
type PushResult uint8

// Push results.
const (
	Queued PushResult = iota // the item waits
	TooManyItems
	TooManyBytes
	TooMuchWork
)

// Verdict is the answer to whether an item may go now.
type Verdict uint8

// Verdicts.
const (
	Dispatch Verdict = iota // it goes
	SkipBase                // its base has no credit; try other bases
	StopAll                 // nothing may go before this item
	SkipItem                // it can't go now; try the next one of its base
)

// Limits of what waits. Replays and suspects count, but are never refused.
type Limits struct {
	Items int
	Bytes int64
	Work  int64 // 0: no limit of its own
}

// Queue of waiting requests. It isn't safe for concurrent use; its owner holds a lock.
type Queue struct {
	limits    Limits
	items     map[uint64]*node
	bytes     int64
	work      int64
	workOf    map[string]int64                 // by base; none is 0
	subqueues [classCount]map[string]*subqueue // by base; none is empty
}

// node is an element of a subqueue's linked list.
type node struct {
	Item
	prev, next *node
}

// subqueue holds what waits for one base in one class, in the order of Item.Order.
type subqueue struct{ first, last *node }

// New makes an empty queue.
func New(limits Limits) *Queue {
	q := &Queue{limits: limits, items: make(map[uint64]*node), workOf: make(map[string]int64)}
	for c := range q.subqueues {
		q.subqueues[c] = make(map[string]*subqueue)
	}
	return q
}

// Len is the number of waiting items.
func (q *Queue) Len() int { return len(q.items) }

// Bytes is the memory that the waiting items take.
func (q *Queue) Bytes() int64 { return q.bytes }

// Work is what engines will have with the items that wait for a base.
func (q *Queue) Work(base string) int64 { return q.workOf[base] }

// Has reports whether anything of a class waits.
func (q *Queue) Has(c Class) bool { return len(q.subqueues[c]) > 0 }

// HasBase reports whether anything of a class waits for a base.
func (q *Queue) HasBase(c Class, base string) bool {
	_, ok := q.subqueues[c][base]
	return ok
}

// Push queues an item or says why there is no room. An id that waits already stays where it is.
func (q *Queue) Push(it Item) PushResult {
	if _, ok := q.items[it.ID]; ok {
		return Queued
	}
	if it.Class == Fresh {
		if len(q.items) >= q.limits.Items {
			return TooManyItems
		}
		if q.bytes+it.Bytes > q.limits.Bytes {
			return TooManyBytes
		}
		if q.limits.Work > 0 && q.work > 0 && q.work+it.Work > q.limits.Work {
			return TooMuchWork
		}
	}
	n := &node{Item: it}
	q.items[it.ID] = n
	q.count(&n.Item, 1)
	sub := q.subqueues[it.Class][it.Base]
	if sub == nil {
		sub = &subqueue{}
		q.subqueues[it.Class][it.Base] = sub
	}
	sub.insert(n)
	return Queued
}

// Remove removes an item, wherever it stands.
func (q *Queue) Remove(id uint64) (Item, bool) {
	n, ok := q.items[id]
	if !ok {
		return Item{}, false
	}
	delete(q.items, id)
	q.count(&n.Item, -1)
	sub := q.subqueues[n.Class][n.Base]
	sub.remove(n)
	if sub.first == nil {
		delete(q.subqueues[n.Class], n.Base)
	}
	return n.Item, true
}

// count adds an item to the totals (sign 1) or takes it out of them (-1).
func (q *Queue) count(it *Item, sign int64) {
	q.bytes += sign * it.Bytes
	q.work += sign * it.Work
	if q.workOf[it.Base] += sign * it.Work; q.workOf[it.Base] == 0 {
		delete(q.workOf, it.Base)
	}
}

// Next removes and returns the first item that may go. It calls allow for the first item of each base, oldest first
// within a class. The verdict holds for everything of that base and class, except with SkipItem.
func (q *Queue) Next(allow func(Item) Verdict) (Item, bool) {
	for c := range q.subqueues {
		for _, n := range q.heads(Class(c)) {
			verdict := allow(n.Item)
			for verdict == SkipItem && n.next != nil {
				n = n.next
				verdict = allow(n.Item)
			}
			switch verdict {
			case Dispatch:
				return q.Remove(n.ID)
			case StopAll:
				return Item{}, false
			}
		}
	}
	return Item{}, false
}

// heads returns the first item of each base in a class, oldest first.
func (q *Queue) heads(c Class) []*node {
	if len(q.subqueues[c]) == 0 {
		return nil
	}
	heads := make([]*node, 0, len(q.subqueues[c]))
	for _, sub := range q.subqueues[c] {
		heads = append(heads, sub.first)
	}
	slices.SortFunc(heads, func(a, b *node) int { return cmp.Compare(a.Order, b.Order) })
	return heads
}

// Waiting returns the items of a class that wait for a base, in their order.
func (q *Queue) Waiting(c Class, base string) []Item {
	var items []Item
	if sub := q.subqueues[c][base]; sub != nil {
		for n := sub.first; n != nil; n = n.next {
			items = append(items, n.Item)
		}
	}
	return items
}

// Expire removes and returns every item whose deadline has come, oldest first.
func (q *Queue) Expire(now time.Time) []Item {
	var expired []Item
	for _, n := range q.items {
		if !n.Deadline.IsZero() && !now.Before(n.Deadline) {
			expired = append(expired, n.Item)
		}
	}
	return q.removeAll(expired)
}

// RemoveBase removes and returns every item of a base, oldest first.
func (q *Queue) RemoveBase(base string) []Item {
	var all []Item
	for _, n := range q.items {
		if n.Base == base {
			all = append(all, n.Item)
		}
	}
	return q.removeAll(all)
}

// RemoveAll empties the queue and returns what was in it, oldest first.
func (q *Queue) RemoveAll() []Item {
	all := make([]Item, 0, len(q.items))
	for _, n := range q.items {
		all = append(all, n.Item)
	}
	return q.removeAll(all)
}

// removeAll removes items and returns them, oldest first.
func (q *Queue) removeAll(items []Item) []Item {
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.Order, b.Order) })
	for _, it := range items {
		q.Remove(it.ID)
	}
	return items
}

// insert keeps the order. An item usually goes to the end; only a replay of an older request goes before others.
func (sub *subqueue) insert(n *node) {
	after := sub.last
	for after != nil && after.Order > n.Order {
		after = after.prev
	}
	n.prev = after
	if after == nil {
		n.next, sub.first = sub.first, n
	} else {
		n.next, after.next = after.next, n
	}
	if n.next == nil {
		sub.last = n
	} else {
		n.next.prev = n
	}
}

func (sub *subqueue) remove(n *node) {
	if n.prev == nil {
		sub.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		sub.last = n.prev
	} else {
		n.next.prev = n.prev
	}
}
