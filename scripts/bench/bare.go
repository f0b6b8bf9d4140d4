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

	"github.com/valyala/fasthttp"
)

// bareEnv makes this program a bare server instead of a benchmark: fasthttp that sends given bytes and does nothing else. It shows what
// sockets, HTTP and the scheduler cost on this machine at this moment, under the same load.
const bareEnv = "TANDEM_BENCH_BARE"

// bareReply is what a bare server answers with; the proxy's own reply, so that both move the same bytes.
type bareReply struct {
	Header map[string]string
	Body   string        // whole, or of each event
	Events int           // 0: not a stream
	Pause  time.Duration // between events of all streams
	Relay  bool          // another goroutine wakes the handler, as whoever waits for an engine is woken
}

// startBare starts a bare server and gives it with its URL.
func startBare(name string, reply bareReply) (*process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	told, err := json.Marshal(reply)
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := launch(name, os.Args[0], []string{bareEnv + "=" + string(told)}, address)
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
	p.stop()
	return nil, "", fmt.Errorf("%s doesn't listen on %s", name, address)
}

// serveBare is the bare server; it runs until it is killed.
func serveBare(told, address string) error {
	var reply bareReply
	if err := json.Unmarshal([]byte(told), &reply); err != nil {
		return err
	}
	wake := newWaker(reply.Pause)
	handler := func(ctx *fasthttp.RequestCtx) {
		for name, value := range reply.Header {
			ctx.Response.Header.Set(name, value)
		}
		if reply.Events > 0 {
			ctx.Response.SetBodyStream(&bareEvents{body: reply.Body, left: reply.Events, wake: wake}, -1)
			return
		}
		if reply.Relay {
			<-wake.next()
		}
		ctx.SetBodyString(reply.Body)
	}
	return (&fasthttp.Server{Handler: handler, NoDefaultServerHeader: true}).ListenAndServe(address)
}

// bareEvents is a stream of equal events; every Read becomes one chunk and one write.
type bareEvents struct {
	body string
	left int
	wake *waker
}

func (e *bareEvents) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.left--
	<-e.wake.next()
	return copy(p, e.body), nil
}

// waker wakes all who wait from one goroutine of its own: at once, or with each tick.
type waker struct {
	come chan struct{}
	mu   sync.Mutex
	all  []chan struct{}
}

func newWaker(pause time.Duration) *waker {
	w := &waker{come: make(chan struct{}, 1)}
	go w.run(pause)
	return w
}

func (w *waker) next() <-chan struct{} {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	w.all = append(w.all, c)
	w.mu.Unlock()
	select {
	case w.come <- struct{}{}:
	default:
	}
	return c
}

func (w *waker) run(pause time.Duration) {
	for range w.come {
		time.Sleep(pause)
		w.mu.Lock()
		all := w.all
		w.all = nil
		w.mu.Unlock()
		for _, c := range all {
			c <- struct{}{}
		}
	}
}

// sample asks a server once and gives the reply as a bare server has to send it: of a stream, the first event.
func sample(t target) (bareReply, error) {
	var reply bareReply
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
