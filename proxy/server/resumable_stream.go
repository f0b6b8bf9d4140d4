package server

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// A stream that can be resumed (stream_options.resume) is made by a goroutine of its own into a buffer, from which its
// first connection and later ones read. It goes on for a while without any.

const (
	streamsPrefix   = "/v1/streams/" // a stream's id follows
	streamPathForm  = streamsPrefix + "{id}"
	streamIDHeader  = "X-Stream-Id"
	lastEventHeader = "Last-Event-ID"

	maxResumable           = 256                  // streams at a time
	maxResumableOfKey      = maxResumable * 3 / 4 // of one API key
	maxResumableBytes      = 4 << 20              // of a stream's events; the oldest are forgotten
	maxResumableTotalBytes = 64 << 20             // of the events of all streams
)

// resumableStream is the buffer of one stream.
type resumableStream struct {
	id        string
	key       string // name of the API key that may read it
	revision  []byte
	resumeFor time.Duration
	forgotten chan struct{} // closed when no further reader can come
	counted   int           // bytes that it takes of maxResumableTotalBytes; resumableStreams.mu guards it

	mu        sync.Mutex
	events    []byte        // those kept
	ends      []int         // where each ends in events
	first     int           // number of the first one
	complete  bool          // no further one comes
	read      bool          // the last one was read
	readers   int           // connections
	idleSince time.Time     // without readers
	changed   chan struct{} // closed and made anew when something of this is different
}

func newResumableStream(key string, resumeFor time.Duration) *resumableStream {
	return &resumableStream{id: newRequestID(), key: key, resumeFor: resumeFor, forgotten: make(chan struct{}), changed: make(chan struct{})}
}

// begin answers with a stream whose first events, if any, are made. The exchange's answer goes to a goroutine that
// makes the others; the connection becomes the first reader.
func (r *resumableStreams) begin(source eventSource) {
	x := source.x
	st := x.resumable
	st.revision = x.answer.Revision()
	maker := *x // of its own, since the connection's exchange ends with the connection
	maker.ctx, maker.resumable = nil, nil
	maker.streaming, maker.receivedBytes = true, len(x.ctx.Request.Body())
	source.x, source.started = &maker, true
	// Nor does the connection keep what the maker lets go.
	x.request, x.encoder, x.choices, x.deltas, x.answer, x.resumable, x.finished = nil, nil, nil, nil, nil, nil, true
	st.attach(0)
	r.pass(&source, st)
	r.running.Go(func() {
		defer r.release(st)
		if r.make(&source, st) {
			source = eventSource{} // the request and its answer, which may be larger than the events
			r.keep(st)
		}
	})
	x.replyBuffered(st, 0)
}

// make makes the events of a stream for as long as somebody reads or may come back. It reports whether they are to be
// kept then.
func (r *resumableStreams) make(source *eventSource, st *resumableStream) (keep bool) {
	x := source.x
	defer x.recoverStream(st)
	idle := time.NewTicker(resumeCheckInterval)
	defer idle.Stop()
	for !source.complete {
		select {
		case <-x.answer.Ready():
			if source.takePieces() {
				r.pass(source, st)
			}
		case <-r.s.drainExpired:
			source.breakOff()
			r.pass(source, st)
		case <-r.abandoned:
			source.abandon()
		case <-idle.C:
			if st.isAbandoned(time.Now()) {
				source.abandon()
			}
		}
	}
	st.end()
	x.settle(source.outcome)
	x.finish()
	return source.outcome != inflight.ClientGone // nobody gets what was left off
}

// pass passes the events made last to the readers. That they are in the buffer counts as written.
func (r *resumableStreams) pass(source *eventSource, st *resumableStream) {
	source.reportWritten(time.Now())
	source.x.sentBytes += len(source.events)
	r.append(st, source.events)
}

// keep keeps the events of a complete stream for as long as somebody reads or may come back, unless there is a want of
// room: its client may not have got what was written.
func (r *resumableStreams) keep(st *resumableStream) {
	check := time.NewTicker(resumeCheckInterval)
	defer check.Stop()
	for !st.isAbandoned(time.Now()) {
		select {
		case <-check.C:
		case <-st.forgotten:
			return
		case <-r.abandoned:
			return
		case <-r.s.drainExpired:
			return
		}
	}
}

// resumeCheckInterval is the precision of resumeFor.
const resumeCheckInterval = 200 * time.Millisecond

// recoverStream ends a stream whose making panicked.
func (x *exchange) recoverStream(st *resumableStream) {
	if fault := recover(); fault != nil {
		x.failAfterPanic(fault)
		st.end()
		x.finish()
	}
}

// append adds events, each with its number, and wakes the readers.
func (st *resumableStream) append(events []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for len(events) > 0 {
		n := bytes.Index(events, []byte("\n\n")) + 2
		if n < 2 {
			n = len(events)
		}
		st.events = strconv.AppendInt(append(st.events, "id: "...), int64(st.first+len(st.ends)), 10)
		st.events = append(append(st.events, '\n'), events[:n]...)
		st.ends = append(st.ends, len(st.events))
		events = events[n:]
	}
	if len(st.events) > maxResumableBytes {
		st.forgetOldest(maxResumableBytes / 2) // not for each event
	}
	st.wake()
}

// size is how many bytes the events take.
func (st *resumableStream) size() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return cap(st.events) + cap(st.ends)*int(unsafe.Sizeof(0))
}

// shrink forgets the older half of the events.
func (st *resumableStream) shrink() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.forgetOldest(len(st.events) / 2)
}

// forgetOldest keeps so many bytes of events, the newest ones, or the last one if it is larger. The caller holds mu.
func (st *resumableStream) forgetOldest(keep int) {
	n, cut := 0, 0
	for n < len(st.ends)-1 && len(st.events)-cut > keep {
		cut = st.ends[n]
		n++
	}
	st.events = append([]byte(nil), st.events[cut:]...)
	st.ends = slices.Clone(st.ends[n:])
	for i := range st.ends {
		st.ends[i] -= cut
	}
	st.first += n
}

// wake tells everybody who waits. The caller holds mu.
func (st *resumableStream) wake() {
	close(st.changed)
	st.changed = make(chan struct{})
}

func (st *resumableStream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.complete = true
	st.wake()
}

// isAbandoned reports whether nobody has read for as long as the client asked to be waited for.
func (st *resumableStream) isAbandoned(now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.readers == 0 && now.Sub(st.idleSince) >= st.resumeFor
}

// use says whether a stream is complete and has no readers, whether it was read to its end, and when it had its last
// reader.
func (st *resumableStream) use() (idle, read bool, idleSince time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.complete && st.readers == 0, st.read, st.idleSince
}

// attach counts a reader that wants the events from number from on; false: the first of them is forgotten, or there
// never was such a number.
func (st *resumableStream) attach(from int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if from < st.first || from > st.first+len(st.ends) {
		return false
	}
	st.readers++
	return true
}

func (st *resumableStream) detach(wroteAll bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readers--
	st.read = st.read || wroteAll
	st.idleSince = time.Now()
	st.wake()
}

// eventsFrom appends the events from number from on, of about most bytes, and returns the number after them. ok is
// false when the first of them is forgotten. changed is closed when there may be more.
func (st *resumableStream) eventsFrom(dst []byte, from, most int) (events []byte, next int, complete, ok bool, changed <-chan struct{}) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if from < st.first {
		return dst, from, false, false, nil
	}
	next = from
	start := 0
	if i := from - st.first; i > 0 {
		start = st.ends[i-1]
	}
	end := start
	for i := from - st.first; i < len(st.ends) && (end == start || st.ends[i]-start <= most); i++ {
		end, next = st.ends[i], next+1
	}
	return append(dst, st.events[start:end]...), next, st.complete && next == st.first+len(st.ends), true, st.changed
}

// replyBuffered answers with the events of a stream from number from on. The stream counts the reader already.
func (x *exchange) replyBuffered(st *resumableStream, from int) {
	x.setStreamHeaders()
	h := &x.ctx.Response.Header
	h.Set(streamIDHeader, st.id)
	x.setRevisionHeader(st.revision)
	x.streaming = true
	r := &bufferedReader{x: x, stream: st, next: from, conn: x.ctx.Conn(), timer: time.NewTimer(x.s.opts.StreamHeartbeat)}
	x.ctx.Response.ImmediateHeaderFlush = true
	_ = x.ctx.SetWriteDeadline(time.Now().Add(x.s.opts.WriteTimeout))
	x.ctx.SetBodyStream(r, -1)
}

// bufferedReader is the body of a reply that reads a stream's buffer.
type bufferedReader struct {
	eventBody
	x      *exchange
	stream *resumableStream
	conn   net.Conn
	timer  *time.Timer
	next   int // number of the next event
	buffer []byte
	unread []byte
	last   bool // unread holds the end of the stream
	all    bool // the end was written
	closed bool
}

// readChunk is about how many bytes of a buffer are written at once.
const readChunk = 32 << 10

// WriteTo implements io.WriterTo.
func (r *bufferedReader) WriteTo(w io.Writer) (int64, error) {
	return r.x.writeEvents(w, func() ([]byte, error) {
		err := r.fill()
		return r.unread, err
	})
}

// fill waits for the next events or keep-alive.
func (r *bufferedReader) fill() error {
	for {
		if r.last {
			r.all = true
			return io.EOF
		}
		events, next, complete, ok, changed := r.stream.eventsFrom(r.buffer[:0], r.next, readChunk)
		if !ok {
			return errStreamBroken // too slow: what comes next is forgotten
		}
		r.buffer, r.next, r.last = events, next, complete
		if len(events) > 0 {
			r.unread = events
			return r.conn.SetWriteDeadline(time.Now().Add(r.x.s.opts.WriteTimeout))
		}
		if complete {
			continue
		}
		r.timer.Reset(r.x.s.opts.StreamHeartbeat)
		select {
		case <-changed:
		case <-r.x.clientCtx.Done():
			return errClientGone
		case <-r.timer.C:
			// One line: after a blank one some clients would take the id before it for that of an event without data.
			r.unread = append(r.buffer[:0], ": keep-alive\n"...)
			return r.conn.SetWriteDeadline(time.Now().Add(r.x.s.opts.WriteTimeout))
		}
	}
}

// CloseWithError is called by fasthttp when the body is written, or can't be.
func (r *bufferedReader) CloseWithError(error) error {
	if !r.closed {
		r.closed = true
		r.timer.Stop()
		r.x.s.endStreamWhileDraining(r.conn)
		r.stream.detach(r.all)
		r.x.finish()
	}
	return nil
}

// resumeStream serves GET /v1/streams/{id}: the events after the one that Last-Event-ID names, and those that come.
func (s *Server) resumeStream(x *exchange) {
	if _, err := s.authenticate(x); err != nil {
		x.replyError(err)
		return
	}
	id := strings.TrimPrefix(string(x.ctx.Path()), streamsPrefix)
	st := s.resumable.find(id, x.key)
	if st == nil {
		err := api.NotFound(string(x.ctx.Path()))
		err.Message = "no stream with this id is kept for this API key"
		x.replyError(err)
		return
	}
	from := 0
	if given := string(x.ctx.Request.Header.Peek(lastEventHeader)); given != "" {
		n, ok := api.ParseWholeNumber(given)
		if !ok || n > 1<<40 {
			x.replyError(api.Invalid(lastEventHeader, "Last-Event-ID must be the id of an event of this stream"))
			return
		}
		from = int(n) + 1
	}
	if !st.attach(from) {
		x.replyError(api.Invalid(lastEventHeader, "the events after this id are not kept any more, or there is no such id"))
		return
	}
	if x.ctx.IsHead() {
		st.detach(false)
		x.ctx.SetStatusCode(fasthttp.StatusOK)
		return
	}
	x.replyBuffered(st, from)
}
