package server

import (
	"sync"
	"time"

	"tandem/proxy/api"
)

// resumableStreams are those of a server, by their id. Their number, that of one API key, and the bytes of their events
// are bounded. Complete streams that nobody reads make room for others.
type resumableStreams struct {
	s           *Server
	running     sync.WaitGroup
	abandoned   chan struct{} // closed when no reader can come any more
	abandonOnce sync.Once     // closes abandoned

	mu      sync.Mutex
	streams map[string]*resumableStream
	bytes   int // that they count
}

func newResumableStreams(s *Server) *resumableStreams {
	return &resumableStreams{s: s, abandoned: make(chan struct{}), streams: make(map[string]*resumableStream)}
}

// reserve makes room for a stream, or refuses the request before it is admitted.
func (r *resumableStreams) reserve(x *exchange, request *api.Request) *api.Error {
	if request.ResumeFor <= 0 || !request.Stream {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ofKey := func(st *resumableStream) bool { return st.key == x.key }
	if x.key != "" && r.count(ofKey) >= maxResumableOfKey && !r.forgetRead(ofKey) {
		return resumableFull("streams of this API key", maxResumableOfKey)
	}
	if len(r.streams) >= maxResumable && !r.forgetRead(func(*resumableStream) bool { return true }) {
		return resumableFull("streams", maxResumable)
	}
	st := newResumableStream(x.key, request.ResumeFor)
	r.streams[st.id] = st
	x.resumable = st
	return nil
}

func resumableFull(what string, most int) *api.Error {
	return api.NewError(api.TypeQueueFull, "%d %s that can be resumed are kept already; try again later, or without stream_options.resume", most, what).
		After(time.Second)
}

// count counts the streams that which selects. The caller holds mu.
func (r *resumableStreams) count(which func(*resumableStream) bool) (n int) {
	for _, st := range r.streams {
		if which(st) {
			n++
		}
	}
	return n
}

// forgetRead makes room with a stream that was read to its end, if there is one among those that which selects. The
// caller holds mu.
func (r *resumableStreams) forgetRead(which func(*resumableStream) bool) bool {
	st, read := r.leastWanted(which)
	if !read {
		return false
	}
	r.forget(st)
	return true
}

// leastWanted finds the complete stream without readers that is the first to go: of those that were read to their end,
// otherwise of all, the one that had no reader for longest. nil: there is none. The caller holds mu.
func (r *resumableStreams) leastWanted(which func(*resumableStream) bool) (least *resumableStream, read bool) {
	var since time.Time
	for _, st := range r.streams {
		if !which(st) {
			continue
		}
		idle, isRead, idleSince := st.use()
		if idle && (least == nil || isRead && !read || isRead == read && idleSince.Before(since)) {
			least, read, since = st, isRead, idleSince
		}
	}
	return least, read
}

// append adds events to a stream, and forgets others where all events together take too much.
func (r *resumableStreams) append(st *resumableStream, events []byte) {
	if len(events) == 0 {
		return
	}
	st.append(events)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteSize(st)
	for r.bytes > maxResumableTotalBytes && r.forgetSome() {
	}
}

// forgetSome forgets a complete stream, or if there is none the older half of the largest one. false: that was nothing.
// The caller holds mu.
func (r *resumableStreams) forgetSome() bool {
	before := r.bytes
	if st, _ := r.leastWanted(func(st *resumableStream) bool { return st.counted > 0 }); st != nil {
		r.forget(st)
		return true
	}
	var largest *resumableStream
	for _, st := range r.streams {
		if largest == nil || st.counted > largest.counted {
			largest = st
		}
	}
	largest.shrink()
	r.noteSize(largest)
	return r.bytes < before
}

// noteSize counts what a stream's events take. The caller holds mu.
func (r *resumableStreams) noteSize(st *resumableStream) {
	if r.streams[st.id] == st {
		size := st.size()
		r.bytes += size - st.counted
		st.counted = size
	}
}

// release forgets a stream. Those that read it get to its end.
func (r *resumableStreams) release(st *resumableStream) {
	if st == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(st)
}

// forget forgets a stream, once. The caller holds mu.
func (r *resumableStreams) forget(st *resumableStream) {
	if r.streams[st.id] != st {
		return
	}
	delete(r.streams, st.id)
	r.bytes -= st.counted
	close(st.forgotten)
}

func (r *resumableStreams) find(id, key string) *resumableStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st := r.streams[id]; st != nil && st.key == key {
		return st
	}
	return nil
}
