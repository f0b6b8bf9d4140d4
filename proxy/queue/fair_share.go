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
	last     float64 // level of the key whose request ended last
	active   int     // keys that have work, or had some lately
	recent   float64 // of all accounts
	sampled  time.Time
}

// Account is what one key was served of one base. Its methods may be called for as long as the key has requests.
type Account struct {
	shares   *Shares
	key      uint64
	weight   float64
	served   float64 // work ÷ weight, with what is expected of running requests
	unused   float64 // of served: expected and not done yet
	recent   float64 // work, fading over shareWindow
	queued   int64   // work that waits
	waiting  int     // items that wait
	running  int     // charged and not settled
	activeAt time.Time
	counted  bool // in Shares.active
}

// Charge is the work that was charged for one running request. The zero value is none: nothing happens to it.
type Charge struct {
	account *Account
	weight  float64 // of the key when it was charged: it is taken back at the same
	unused  float64 // work that is expected and not done yet
}

const (
	// shareWindow is over how long a key's use of the engine is averaged, and how long a key counts as active after its
	// last request.
	shareWindow = 10 * time.Second
	// forgetAccount is the time after which a key without requests is forgotten, even if it was served more than
	// others.
	forgetAccount = 10 * time.Minute
	// expectedFor is how long a key without requests is expected to send some, and requestsExpected how many.
	expectedFor      = time.Minute
	requestsExpected = 2
)

func newShares() *Shares { return &Shares{accounts: make(map[uint64]*Account)} }

// account returns the account of a key, which may have a new weight since.
func (s *Shares) account(key uint64, weight float64) *Account {
	a := s.accounts[key]
	if a == nil {
		a = &Account{shares: s, key: key, counted: true}
		s.accounts[key] = a
		s.active++
	}
	a.weight = weight
	if weight <= 0 {
		a.weight = 1
	}
	return a
}

// join is called when a key that had nothing to do gets an item: it loses what it was served less than the others. What
// they are only expected to be served isn't lost: before lengths of answers are known that may be a hundred times what
// comes, and the key would wait until the others have caught up with a guess.
func (s *Shares) join(a *Account) {
	least := math.Inf(1)
	for _, other := range s.accounts {
		if other != a && (other.waiting > 0 || other.running > 0) {
			least = min(least, other.level())
		}
	}
	if math.IsInf(least, 1) {
		least = s.last
	}
	a.served = max(a.served, least)
}

// level is the work that was done for the key ÷ weight.
func (a *Account) level() float64 { return a.served - a.unused }

// Charge counts work for the key: as much as is expected of a request when it is sent.
func (a *Account) Charge(work float64) Charge {
	if a.waiting == 0 && a.running == 0 {
		a.shares.join(a)
	}
	a.running++
	a.activeAt = a.shares.sampled // it may be over before the next sample
	a.add(work, a.weight)
	a.unused += work / a.weight
	return Charge{account: a, weight: a.weight, unused: work}
}

// add counts work, or takes it back.
func (a *Account) add(work, weight float64) {
	a.served += work / weight
	a.recent = max(a.recent+work, 0)
	a.shares.recent = max(a.shares.recent+work, 0)
}

// Use says that work was done for the request: of what is expected of it or, beyond that, more.
func (c *Charge) Use(work float64) {
	if c.account == nil {
		return
	}
	expected := min(work, c.unused)
	c.unused -= expected
	c.account.unused -= expected / c.weight
	if more := work - expected; more > 0 {
		c.account.add(more, c.weight)
	}
}

// Settle ends what Charge began and takes back what was charged and not used.
func (c *Charge) Settle() {
	a := c.account
	if a == nil {
		return
	}
	a.add(-c.unused, c.weight)
	a.unused -= c.unused / c.weight
	if a.running--; a.running == 0 {
		a.unused = 0 // sums of fractions aren't exact
	}
	a.shares.last = a.level()
	*c = Charge{}
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

// Expected is how many requests may come at any time and be due, up to a number: two of each key that had some in the
// last minute, none of which waits and of which fewer are at the engine than its part of so many sequences. The second
// one may come while the first is answered. For a key that has no more than its part itself there are none.
func (s *Shares) Expected(of *Account, sequences, most int) int {
	weights := 0.0
	for _, a := range s.accounts {
		if a.isExpected() {
			weights += a.weight
		}
	}
	part := func(a *Account) float64 { return float64(sequences) * a.weight / weights }
	if float64(of.running) < part(of) {
		return 0
	}
	n := 0
	for _, a := range s.accounts {
		if n < most && a != of && a.waiting == 0 && a.isExpected() && float64(a.running) < part(a) {
			n += requestsExpected
		}
	}
	return min(n, most)
}

// isExpected reports whether the key has requests, or had some in the last minute.
func (a *Account) isExpected() bool {
	return a.waiting > 0 || a.running > 0 || a.shares.sampled.Sub(a.activeAt) < expectedFor
}

// othersUse reports whether keys other than this one use the base.
func (s *Shares) othersUse(key uint64) bool {
	others := s.active
	if a := s.accounts[key]; a != nil && a.counted {
		others--
	}
	return others > 0
}

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
		if a.counted = a.isActive(); a.counted {
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
