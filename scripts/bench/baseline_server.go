package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"tandem/scripts/launch"

	"github.com/valyala/fasthttp"
)

// baselineEnv makes this program a bare server instead of a benchmark: fasthttp that sends given bytes and does nothing
// else. Under the same load it shows what sockets, HTTP and the scheduler alone cost on this machine at this moment.
const baselineEnv = "TANDEM_BENCH_BARE"

// baselineReply is what a bare server answers: the proxy's own reply, so that both send the same bytes.
type baselineReply struct {
	Header          map[string]string
	Body            string        // whole, or of each event
	Events          int           // 0: not a stream
	EventInterval   time.Duration // between the events of all streams
	WakeByGoroutine bool          // another goroutine wakes the handler, as one that waits for an engine is woken
}

// startBaselineServer starts a bare server and returns it with its URL.
func startBaselineServer(name string, reply baselineReply) (*launch.Process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	encoded, err := json.Marshal(reply)
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := startProcess(name, os.Args[0], []string{baselineEnv + "=" + string(encoded)}, address)
	if err != nil {
		return nil, "", err
	}
	for range 1000 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return p, "http://" + address, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop(p)
	return nil, "", fmt.Errorf("%s doesn't listen on %s", name, address)
}

// serveBaseline is the bare server; it runs until it is killed.
func serveBaseline(encoded, address string) error {
	var reply baselineReply
	if err := json.Unmarshal([]byte(encoded), &reply); err != nil {
		return err
	}
	wake := newWaker(reply.EventInterval)
	handler := func(ctx *fasthttp.RequestCtx) {
		for name, value := range reply.Header {
			ctx.Response.Header.Set(name, value)
		}
		if reply.Events > 0 {
			ctx.Response.SetBodyStream(&eventStream{body: reply.Body, left: reply.Events, wake: wake}, -1)
			return
		}
		if reply.WakeByGoroutine {
			<-wake.wait()
		}
		ctx.SetBodyString(reply.Body)
	}
	return (&fasthttp.Server{Handler: handler, NoDefaultServerHeader: true}).ListenAndServe(address)
}

// eventStream is a stream of equal events; every Read becomes one chunk and one write.
type eventStream struct {
	body string
	left int
	wake *waker
}

func (e *eventStream) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.left--
	<-e.wake.wait()
	return copy(p, e.body), nil
}

// waker wakes all waiting handlers from a goroutine of its own, as soon as one waits or an interval later.
type waker struct {
	requested chan struct{}
	mu        sync.Mutex
	waiting   []chan struct{}
}

func newWaker(interval time.Duration) *waker {
	w := &waker{requested: make(chan struct{}, 1)}
	go w.run(interval)
	return w
}

func (w *waker) wait() <-chan struct{} {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	select {
	case w.requested <- struct{}{}:
	default:
	}
	return c
}

func (w *waker) run(interval time.Duration) {
	for range w.requested {
		time.Sleep(interval)
		w.mu.Lock()
		waiting := w.waiting
		w.waiting = nil
		w.mu.Unlock()
		for _, c := range waiting {
			c <- struct{}{}
		}
	}
}

// sampleReply sends one request and returns the reply as a bare server has to send it; of a stream, its first event.
func sampleReply(t target) (baselineReply, error) {
	var reply baselineReply
	req, err := newRequest(t, 0)
	if err != nil {
		return reply, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	reply.Header = make(map[string]string)
	for name := range resp.Header {
		if name != "Date" && name != "Content-Length" {
			reply.Header[name] = resp.Header.Get(name)
		}
	}
	if !isStream(resp) {
		body, err := io.ReadAll(resp.Body)
		reply.Body = string(body)
		return reply, err
	}
	first, err := bufio.NewReader(resp.Body).ReadString('\n')
	reply.Body = first + "\n"
	return reply, err
}
