// Package queue holds the ids of requests that wait for an engine: it bounds their number, bytes and work, and decides
// which one may go next: within a base model that of the key that was served least, and within a key it is first come,
// first served. A base without credit holds up no other. The package holds no requests, starts no goroutine and reads
// no clock: times are passed in.
package queue

import (
	"cmp"
	"math"
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
	Base     string  // the base model whose credit it needs; "" while that isn't known
	Key      uint64  // whose it is
	Weight   float64 // of the key; 0: 1
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
	KeyTooManyItems // of the limits, as far as one key may use them
	KeyTooManyBytes
	KeyTooMuchWork
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

// Limits of what waits. Replays, suspects and what PushAdmitted queues count, but are never refused.
type Limits struct {
	Items int
	Bytes int64
	Work  int64 // 0: no limit of its own
	// KeyShare is the part of the limits that one key may use while others are active, on whatever base; 0: all.
	KeyShare float64
}

// Queue of waiting requests. It isn't safe for concurrent use; its owner holds a lock.
type Queue struct {
	limits    Limits
	items     map[uint64]*node
	bytes     int64
	work      int64
	shares    map[string]*Shares                 // by base
	usedBy    map[uint64]usage                   // by key; none is empty
	workOf    map[string]int64                   // by base; none is 0
	subqueues [classCount]map[string][]*subqueue // by base; none is empty
	sorted    []*subqueue                        // of heads
}

// usage is what the items of a key take.
type usage struct {
	items       int
	bytes, work int64
}

// node is an element of a subqueue's linked list.
type node struct {
	Item
	prev, next *node
	sub        *subqueue
}

// subqueue holds what waits for one base in one class, of Fresh ones those of one key, in the order of Item.Order.
type subqueue struct {
	first, last *node
	account     *Account // of Fresh ones
}

// New makes an empty queue.
func New(limits Limits) *Queue {
	q := &Queue{limits: limits, items: make(map[uint64]*node), shares: make(map[string]*Shares), usedBy: make(map[uint64]usage), workOf: make(map[string]int64)}
	for c := range q.subqueues {
		q.subqueues[c] = make(map[string][]*subqueue)
	}
	return q
}

// Len is the number of waiting items.
func (q *Queue) Len() int { return len(q.items) }

// Bytes is the memory that the waiting items take.
func (q *Queue) Bytes() int64 { return q.bytes }

// Work is what engines will have with the items that wait for a base.
func (q *Queue) Work(base string) int64 { return q.workOf[base] }

// ReplayWork is what engines will have with the items of a base that go before every fresh one.
func (q *Queue) ReplayWork(base string) int64 {
	fresh := int64(0)
	for _, sub := range q.subqueues[Fresh][base] {
		fresh += sub.account.queued
	}
	return q.workOf[base] - fresh
}

// Has reports whether anything of a class waits.
func (q *Queue) Has(c Class) bool { return len(q.subqueues[c]) > 0 }

// HasBase reports whether anything of a class waits for a base.
func (q *Queue) HasBase(c Class, base string) bool {
	_, ok := q.subqueues[c][base]
	return ok
}

// Push queues an item or says why there is no room. An id that waits already stays where it is.
func (q *Queue) Push(it Item) PushResult {
	if _, ok := q.items[it.ID]; !ok && it.Class == Fresh {
		if result := q.checkLimits(&it); result != Queued {
			return result
		}
	}
	q.PushAdmitted(it)
	return Queued
}

// PushAdmitted queues an item of a request that was admitted: it counts, but is never refused. An id that waits already
// stays where it is.
func (q *Queue) PushAdmitted(it Item) {
	if _, ok := q.items[it.ID]; ok {
		return
	}
	n := &node{Item: it, sub: q.subqueueFor(&it)}
	q.items[it.ID] = n
	q.count(&n.Item, 1)
	if a := n.sub.account; a != nil {
		if a.waiting == 0 && a.running == 0 {
			a.shares.join(a)
		}
		a.waiting++
		a.queued += it.Work
	}
	n.sub.insert(n)
}

// checkLimits decides whether there is room for a fresh item.
func (q *Queue) checkLimits(it *Item) PushResult {
	switch l := q.limits; {
	case len(q.items) >= l.Items:
		return TooManyItems
	case q.bytes+it.Bytes > l.Bytes:
		return TooManyBytes
	case l.Work > 0 && q.work > 0 && q.work+it.Work > l.Work:
		return TooMuchWork
	case l.KeyShare <= 0 || l.KeyShare >= 1 || !q.othersActive(it.Key):
		return Queued
	}
	used := q.usedBy[it.Key]
	part := func(n int64) int64 { return int64(math.Ceil(q.limits.KeyShare * float64(n))) }
	switch l := q.limits; {
	case int64(used.items) >= part(int64(l.Items)):
		return KeyTooManyItems
	case used.items > 0 && used.bytes+it.Bytes > part(l.Bytes):
		return KeyTooManyBytes
	case l.Work > 0 && used.items > 0 && used.work+it.Work > part(l.Work):
		return KeyTooMuchWork
	}
	return Queued
}

// othersActive reports whether keys other than this one use any base: the queue is one for all of them.
func (q *Queue) othersActive(key uint64) bool {
	if n := len(q.usedBy); n > 1 || n == 1 && q.usedBy[key].items == 0 {
		return true
	}
	for _, s := range q.shares {
		if s.othersUse(key) {
			return true
		}
	}
	return false
}

// subqueueFor finds or makes the subqueue of an item.
func (q *Queue) subqueueFor(it *Item) *subqueue {
	var account *Account
	if it.Class == Fresh {
		account = q.Account(it.Base, it.Key, it.Weight)
	}
	for _, sub := range q.subqueues[it.Class][it.Base] {
		if sub.account == account {
			return sub
		}
	}
	sub := &subqueue{account: account}
	q.subqueues[it.Class][it.Base] = append(q.subqueues[it.Class][it.Base], sub)
	return sub
}

// Shares returns how a base is shared between keys.
func (q *Queue) Shares(base string) *Shares {
	s := q.shares[base]
	if s == nil {
		s = newShares()
		q.shares[base] = s
	}
	return s
}

// Account returns a key's account of a base; weight 0 is 1.
func (q *Queue) Account(base string, key uint64, weight float64) *Account {
	return q.Shares(base).account(key, weight)
}

// Sample is called regularly: it lets what was served fade, and forgets keys that are long gone.
func (q *Queue) Sample(now time.Time) {
	for base, s := range q.shares {
		if s.Sample(now); len(s.accounts) == 0 {
			delete(q.shares, base)
		}
	}
}

// ForgetBase drops the shares of a base for which nothing waits.
func (q *Queue) ForgetBase(base string) { delete(q.shares, base) }

// Remove removes an item, wherever it stands.
func (q *Queue) Remove(id uint64) (Item, bool) {
	n, ok := q.items[id]
	if !ok {
		return Item{}, false
	}
	delete(q.items, id)
	q.count(&n.Item, -1)
	sub := n.sub
	sub.remove(n)
	if a := sub.account; a != nil {
		a.waiting--
		a.queued -= n.Work
	}
	if sub.first != nil {
		return n.Item, true
	}
	rest := slices.DeleteFunc(q.subqueues[n.Class][n.Base], func(s *subqueue) bool { return s == sub })
	q.subqueues[n.Class][n.Base] = rest
	if len(rest) == 0 {
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
	u := q.usedBy[it.Key]
	u.items, u.bytes, u.work = u.items+int(sign), u.bytes+sign*it.Bytes, u.work+sign*it.Work
	if q.usedBy[it.Key] = u; u.items == 0 {
		delete(q.usedBy, it.Key)
	}
}

// Next removes and returns the first item that may go. It calls allow for the first item of each base, oldest first
// within a class. The verdict holds for everything of that base and class, except with SkipItem.
func (q *Queue) Next(allow func(Item) Verdict) (Item, bool) {
	for c := range q.subqueues {
		for _, head := range q.heads(Class(c)) {
			switch n, verdict := q.firstAllowed(Class(c), head, allow); verdict {
			case Dispatch:
				return q.Remove(n.ID)
			case StopAll:
				return Item{}, false
			}
		}
	}
	return Item{}, false
}

// firstAllowed asks about the first item of a base, and passes those that are to be skipped: first those of the same
// key, then those of the next ones.
func (q *Queue) firstAllowed(c Class, head *subqueue, allow func(Item) Verdict) (*node, Verdict) {
	subs := q.subqueues[c][head.first.Base]
	n := head.first
	verdict := allow(n.Item)
	if verdict != SkipItem {
		return n, verdict
	}
	for _, sub := range inOrder(slices.Clone(subs)) {
		for n = sub.first; n != nil; n = n.next {
			if verdict = allow(n.Item); verdict != SkipItem {
				return n, verdict
			}
		}
	}
	return nil, SkipItem
}

// heads returns the subqueue of each base in a class that goes first, by the age of their items.
func (q *Queue) heads(c Class) []*subqueue {
	heads := q.sorted[:0]
	for _, subs := range q.subqueues[c] {
		heads = append(heads, slices.MinFunc(subs, order))
	}
	slices.SortFunc(heads, func(a, b *subqueue) int { return cmp.Compare(a.first.Order, b.first.Order) })
	q.sorted = heads
	return heads
}

// Waiting returns the items of a class that wait for a base, those of each key together in their order.
func (q *Queue) Waiting(c Class, base string) []Item {
	var items []Item
	for _, sub := range q.subqueues[c][base] {
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
