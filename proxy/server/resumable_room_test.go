package server

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

// reserveStream makes room for a stream of a key.
func (r *resumableStreams) reserveStream(key string) (*resumableStream, *api.Error) {
	x := &exchange{key: key}
	err := r.reserve(x, &api.Request{Stream: true, ResumeFor: time.Minute})
	return x.resumable, err
}

// Streams that were read to their end are no reason to refuse others.
func TestReadStreamsMakeRoomForOthers(t *testing.T) {
	const secondKey = "second-key"
	ts := startTestServer(t, instantTable(), func(o *Options) { o.Keys = openKeys(t, "demo:"+testKey+",second:"+secondKey) })
	ask := func(key string) int {
		return ts.do("POST", "/v1/chat/completions", fmt.Sprintf(resumableBody, 600), "Content-Type", "application/json", "Authorization", "Bearer "+key).StatusCode
	}
	for i := range maxResumable + 1 {
		if status := ask(testKey); status != http.StatusOK {
			t.Fatalf("stream %d: status %d", i, status)
		}
	}
	if status := ask(secondKey); status != http.StatusOK {
		t.Errorf("another key: status %d", status)
	}
}

// Streams that weren't read to their end stay, and a key leaves some to the others.
func TestKeyHasNotAllStreams(t *testing.T) {
	r := newResumableStreams(nil)
	for i := range maxResumableOfKey {
		st, err := r.reserveStream("a")
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		st.end()
	}
	if _, err := r.reserveStream("a"); err == nil || err.Type != api.TypeQueueFull {
		t.Errorf("a key has more than its part: %v", err)
	}
	var st *resumableStream
	for i := range maxResumable - maxResumableOfKey {
		var err *api.Error
		if st, err = r.reserveStream("b"); err != nil {
			t.Fatalf("stream %d of another key: %v", i, err)
		}
	}
	if _, err := r.reserveStream("b"); err == nil || err.Type != api.TypeQueueFull {
		t.Errorf("there are more streams than may be: %v", err)
	}
	st.attach(0)
	st.end()
	st.detach(true)
	if _, err := r.reserveStream("b"); err != nil {
		t.Errorf("although one was read: %v", err)
	}
	if r.find(st.id, "b") != nil {
		t.Error("the one that was read is kept")
	}
}

// However many streams there are, their events take a bounded number of bytes. Complete streams go first, those that
// were read before the others, and then the oldest events of the largest streams.
func TestEventsOfAllStreamsAreBounded(t *testing.T) {
	r := newResumableStreams(nil)
	event := []byte("data: " + strings.Repeat("x", 16<<10) + "\n\n")
	var streams []*resumableStream
	for range maxResumable {
		st, err := r.reserveStream("")
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	unread, read, small := streams[0], streams[1], streams[2]
	r.append(small, event[len(event)/2:])
	for range 16 {
		r.append(unread, event)
		r.append(read, event)
	}
	unread.end()
	read.end()
	read.attach(0)
	read.detach(true)
	for i := 0; r.find(read.id, "") != nil; i++ {
		r.append(streams[3+i%len(streams[3:])], event)
		if r.find(unread.id, "") == nil {
			t.Fatal("a stream that wasn't read goes before one that was")
		}
	}
	for range 32 {
		for _, st := range streams[3:] {
			r.append(st, event)
		}
	}
	total := 0
	for _, st := range r.streams {
		total += cap(st.events)
	}
	if total > maxResumableTotalBytes {
		t.Errorf("%d bytes are kept", total)
	}
	if r.find(unread.id, "") != nil {
		t.Error("a complete stream is kept instead of what is being made")
	}
	if small.first != 0 || len(small.ends) != 1 {
		t.Error("a small stream has lost events")
	}
	for _, st := range streams[2:] {
		r.release(st)
	}
	if r.bytes != 0 {
		t.Errorf("%d bytes are counted without a stream", r.bytes)
	}
}

// A stream that is kept keeps its events alone: the request may be larger than they.
func TestKeptStreamForgetsItsRequest(t *testing.T) {
	collected := make(chan struct{})
	table := instantTable()
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		runtime.AddCleanup(r.Infer, func(struct{}) { close(collected) }, struct{}{})
		return admit(r)
	}
	ts := startTestServer(t, table, nil)
	response := ts.start(context.Background(), "POST", "/v1/chat/completions", fmt.Sprintf(resumableBody, 600), openAIHeaders()...)
	if r := ts.read(response); !strings.Contains(r.body, "[DONE]") {
		t.Fatalf("status %d, %s", r.StatusCode, r.body)
	}
	await.Until(t, waitLimit, "the request is collected", func() bool {
		runtime.GC()
		select {
		case <-collected:
			return true
		default:
			return false
		}
	})
	if r := ts.do("GET", "/v1/streams/"+response.Header.Get("X-Stream-Id"), "", openAIHeaders()...); r.StatusCode != http.StatusOK {
		t.Errorf("its events: status %d", r.StatusCode)
	}
}
