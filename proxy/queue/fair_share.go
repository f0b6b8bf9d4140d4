package queue

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Shares divides the engine's work on one base between keys: the key that was served least goes next (virtual token
// counter; Sheng et al., Fairness in Serving Large Language Models, OSDI 2024). A counter is the work served, divided
// by the key's weight. A key that comes back after it had nothing to do begins where the others are, so that nobody
// saves up for later.
type Shares struct {
	accounts map[uint64]*Account
	last     float64 // counter of the key that was served last
	active   int     // keys that have work, or had some lately
	recent   float64 // of all accounts
	sampled  time.Time
}

// Account is what one key was served of one base. Its methods may be called for as long as the key has requests.
type Account struct {
	shares   *Shares
	key      uint64
	weight   float64
	served   float64 // work ÷ weight
	recent   float64 // work, fading over shareWindow
	queued   int64   // work that waits
	waiting  int     // items that wait
	running  int     // charged and not settled
	activeAt time.Time
}

const (
	// shareWindow is over how long a key's use of the engine is averaged, and how long a key counts as active after its
	// last request.
	shareWindow = 10 * time.Second
	// forgetAccount is the time after which a key without requests is forgotten, even if it was served more than
	// others.
	forgetAccount = 10 * time.Minute
)

func newShares() *Shares { return &Shares{accounts: make(map[uint64]*Account)} }

// account returns the account of a key, which may have a new weight since.
func (s *Shares) account(key uint64, weight float64) *Account {
	a := s.accounts[key]
	if a == nil {
		a = &Account{shares: s, key: key}
		s.accounts[key] = a
		s.active++
	}
	a.weight = weight
	if weight <= 0 {
		a.weight = 1
	}
	return a
}

// join is called when a key that had nothing to do gets an item: it loses what it was served less than the others.
func (s *Shares) join(a *Account) {
	least := math.Inf(1)
	for _, other := range s.accounts {
		if other != a && (other.waiting > 0 || other.running > 0) {
			least = min(least, other.served)
		}
	}
	if math.IsInf(least, 1) {
		least = s.last
	}
	a.served = max(a.served, least)
}

// Charge counts work for the key: as much as is expected of a request when it is sent.
func (a *Account) Charge(work float64) {
	if a.waiting == 0 && a.running == 0 {
		a.shares.join(a)
	}
	a.running++
	a.activeAt = a.shares.sampled // it may be over before the next sample
	a.Correct(work)
	a.shares.last = a.served
}

// Correct counts what a request took more than was expected, or less.
func (a *Account) Correct(work float64) {
	a.served += work / a.weight
	a.recent = max(a.recent+work, 0)
	a.shares.recent = max(a.shares.recent+work, 0)
}

// Settle ends what Charge began; work is what the request took more than was charged, or less.
func (a *Account) Settle(work float64) {
	a.running--
	a.Correct(work)
}

// QueuedWork is the work of the key's waiting items.
func (a *Account) QueuedWork() int64 { return a.queued }

// Share is the part of the engine's speed that the key can count on: what the others leave, and at least its own part
// among the active ones.
func (a *Account) Share() float64 {
	weights, others := a.weight, 0.0
	for _, other := range a.shares.accounts {
		if other != a && other.isActive() {
			weights += other.weight
			others += other.recent
		}
	}
	if weights == a.weight {
		return 1
	}
	left := 0.0
	if a.shares.recent > 0 {
		left = 1 - min(others/a.shares.recent, 1)
	}
	return max(a.weight/weights, left)
}

// isActive reports whether the key has requests, or had some lately.
func (a *Account) isActive() bool {
	return a.waiting > 0 || a.running > 0 || a.shares.sampled.Sub(a.activeAt) < shareWindow
}

// Contended reports whether several keys use the base.
func (s *Shares) Contended() bool { return s.active > 1 }

// Sample is called regularly: it lets what was served fade, and forgets keys.
func (s *Shares) Sample(now time.Time) {
	keep := 1.0
	if !s.sampled.IsZero() {
		keep = math.Exp(-now.Sub(s.sampled).Seconds() / shareWindow.Seconds())
	}
	s.sampled, s.active, s.recent = now, 0, 0
	for key, a := range s.accounts {
		if a.waiting > 0 || a.running > 0 {
			a.activeAt = now
		}
		if now.Sub(a.activeAt) > forgetAccount {
			delete(s.accounts, key)
			continue
		}
		a.recent *= keep
		s.recent += a.recent
		if a.isActive() {
			s.active++
		}
	}
}

// order compares two keys that have items waiting: which goes first. Of keys that were served alike it is the one with
// fewer items.
func order(a, b *subqueue) int {
	if a.account == nil || b.account == nil {
		return cmp.Compare(a.first.Order, b.first.Order)
	}
	return cmp.Or(cmp.Compare(a.account.served, b.account.served), cmp.Compare(a.account.waiting, b.account.waiting), cmp.Compare(a.first.Order, b.first.Order))
}

// inOrder sorts the subqueues of a base by who goes first.
func inOrder(subs []*subqueue) []*subqueue {
	slices.SortFunc(subs, order)
	return subs
}
