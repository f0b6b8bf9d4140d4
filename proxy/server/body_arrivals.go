package server

import (
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// bodyArrivals has a copy of the header of each request whose body is still being read. fasthttp drops the header when
// the rest of a request doesn't come in time or has too many bytes, and an error reply needs it: for the path, which
// decides the form of the error, and for the id, the key and the origin of the page.
type bodyArrivals struct {
	started time.Time
	limit   time.Duration // a copy older than this is of a client that has left: no handler was called then
	copies  sync.Pool     // *fasthttp.RequestHeader

	mu sync.Mutex
	// headers is by fasthttp's own header, which is the same one until the body is there.
	headers map[*fasthttp.RequestHeader]bodyArrival
	sweepAt int // at how many entries the old ones are looked for
}

type bodyArrival struct {
	header *fasthttp.RequestHeader
	since  time.Duration // by now
}

const minArrivalsSweep = 64

func newBodyArrivals(readTimeout time.Duration) *bodyArrivals {
	return &bodyArrivals{started: time.Now(), limit: 2 * readTimeout, headers: make(map[*fasthttp.RequestHeader]bodyArrival), sweepAt: minArrivalsSweep,
		copies: sync.Pool{New: func() any { return new(fasthttp.RequestHeader) }}}
}

// now is the time since the start.
func (b *bodyArrivals) now() time.Duration { return time.Since(b.started) }

// begin copies the header of a request that has a body.
func (b *bodyArrivals) begin(h *fasthttp.RequestHeader) {
	if n := h.ContentLength(); n == 0 || n == noBody {
		return
	}
	header := b.copies.Get().(*fasthttp.RequestHeader)
	h.CopyTo(header)
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.headers) >= b.sweepAt {
		b.sweep(now)
	}
	b.headers[h] = bodyArrival{header, now}
}

// noBody is fasthttp's content length of a request that says nothing about a body.
const noBody = -2

// sweep drops what clients left behind. It must be called with mu held.
func (b *bodyArrivals) sweep(now time.Duration) {
	for h, a := range b.headers {
		if now-a.since > b.limit {
			delete(b.headers, h)
		}
	}
	b.sweepAt = max(minArrivalsSweep, 2*len(b.headers))
}

// end forgets a request whose body is there.
func (b *bodyArrivals) end(h *fasthttp.RequestHeader) {
	if header := b.take(h, 0); header != nil {
		b.copies.Put(header)
	}
}

// restore gives fasthttp's header back what it had when the request began to arrive. Without a copy it stays as it is.
// since is when the connection's last request began: an older copy is another client's, which left, and whose header
// fasthttp uses again.
func (b *bodyArrivals) restore(h *fasthttp.RequestHeader, since time.Duration) {
	if header := b.take(h, since); header != nil {
		header.CopyTo(h)
		b.copies.Put(header)
	}
}

func (b *bodyArrivals) take(h *fasthttp.RequestHeader, since time.Duration) *fasthttp.RequestHeader {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.headers[h]
	if !ok {
		return nil
	}
	delete(b.headers, h)
	if a.since < since {
		return nil
	}
	return a.header
}
