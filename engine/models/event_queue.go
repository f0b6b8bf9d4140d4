package models

import (
	"context"
	"sync"
	"time"
)

// eventQueue delivers events in order on a goroutine of its own, so that a slow receiver doesn't hold up the cache.
// Progress that isn't delivered yet is replaced by newer progress of the same entry, so the queue's length is bounded
// by the number of entries and of their starts and ends.
type eventQueue struct {
	deliver func(Event)
	done    chan struct{}

	mu        sync.Mutex
	wake      sync.Cond       // on mu
	pending   []Event         // guarded by mu
	added     uint64          // how many ever were; guarded by mu
	delivered uint64          // how many of them are; guarded by mu
	awaited   []awaitedEvents // in the order of upTo; guarded by mu
	closed    bool            // guarded by mu
}

// awaitedEvents is one caller that waits for deliveries.
type awaitedEvents struct {
	upTo uint64 // of eventQueue.delivered
	done chan struct{}
}

func newEventQueue(deliver func(Event)) *eventQueue {
	q := &eventQueue{deliver: deliver, done: make(chan struct{})}
	q.wake.L = &q.mu
	go q.run()
	return q
}

func (q *eventQueue) add(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.Kind == EventProgress {
		for i := len(q.pending) - 1; i >= 0; i-- {
			p := &q.pending[i]
			if p.Model == e.Model && p.Version == e.Version {
				if p.Kind == EventProgress {
					*p = e
					return
				}
				break
			}
		}
	}
	q.pending = append(q.pending, e)
	q.added++
	q.wake.Signal()
}

func (q *eventQueue) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.pending) == 0 && !q.closed {
			q.wake.Wait()
		}
		batch := q.pending
		q.pending = nil
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			q.deliver(e)
			q.noteDelivered()
		}
	}
}

func (q *eventQueue) noteDelivered() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delivered++
	for len(q.awaited) > 0 && q.awaited[0].upTo <= q.delivered {
		close(q.awaited[0].done)
		q.awaited = q.awaited[1:]
	}
}

// await waits until all events so far are delivered, or the context ends.
func (q *eventQueue) await(ctx context.Context) {
	q.mu.Lock()
	if q.added == q.delivered {
		q.mu.Unlock()
		return
	}
	a := awaitedEvents{upTo: q.added, done: make(chan struct{})}
	q.awaited = append(q.awaited, a)
	q.mu.Unlock()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// close delivers what is left and waits until that is done.
func (q *eventQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Signal()
	q.mu.Unlock()
	<-q.done
}

// Event is what happens to an entry, for the proxy.
type Event struct {
	Kind     EventKind
	Model    string
	Version  string
	Progress Progress
	Took     time.Duration // EventLoaded
	Bytes    int64         // EventLoaded: what evicting this entry would free (F18)
	Facts    Facts         // EventLoaded of a base
	Reason   string        // EventLoadFailed: a Reason; EventEvicted: lru, memory, changed, admin
	Message  string        // EventLoadFailed, for people
	Logged   bool          // EventLoadFailed: the log has it already
}

// EventKind of an Event.
type EventKind uint8

// Event kinds.
const (
	EventLoading EventKind = iota + 1
	EventProgress
	EventLoaded
	EventLoadFailed
	EventEvicted
)
