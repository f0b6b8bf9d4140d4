// Package load sends requests to an inference server and notes when what came back. It knows closed loops, where a
// number of clients each send one request after another, and open loops, where requests come at given times whether or
// not earlier ones are done; users who don't know of each other are an open loop. It isn't a server's client library:
// what a request looks like and which event is the last are told by whoever describes the server.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Job is what is asked of a server.
type Job struct {
	Prompt    string
	MaxTokens int
	Adapter   int           // counted from 0; NoAdapter: the base model
	Deadline  time.Duration // the client leaves then; 0: it waits RequestTimeout
	ComesBack bool          // once, after the Retry-After of a refusal; only in an open loop
}

// NoAdapter is the base model.
const NoAdapter = -1

// RequestTimeout ends a request whatever happens, so that a benchmark ends.
const RequestTimeout = 10 * time.Minute

// maxEventBytes is the longest line that is read.
const maxEventBytes = 1 << 20

// Server is a server under load. Replies must be streams of server-sent events.
type Server struct {
	Name    string
	Request func(Job) (*http.Request, error)
	// Last reads the data of an event: whether it is the last of its stream, and how many tokens the stream had.
	Last func(event []byte) (tokens int, last bool, err error)
}

// Timeline is what a client saw of one request. Times count from the start of the run.
type Timeline struct {
	Sent, Ended time.Duration
	Events      []time.Duration // when each event with text came
	Tokens      int             // 0 unless the reply is whole
	Status      int             // 0: no reply
	RetryAfter  string
	Returned    bool  // the client had been refused, and came back when it was told to
	SentAgain   bool  // the connection was closed before there was a reply
	Err         error // why the reply isn't whole
}

// Refused reports whether the server said no before it began to answer.
func (t *Timeline) Refused() bool {
	refusal := t.Status == http.StatusServiceUnavailable || t.Status == http.StatusTooManyRequests
	return refusal && len(t.Events) == 0
}

// Late reports whether time ran out, for the client or for the server.
func (t *Timeline) Late() bool {
	return t.Status == http.StatusGatewayTimeout || errors.Is(t.Err, context.DeadlineExceeded) || errors.Is(t.Err, ErrLate)
}

// Failed reports whether the request was neither answered nor refused, and time was left.
func (t *Timeline) Failed() bool { return t.Err != nil && !t.Refused() && !t.Late() }

// ErrLate is what a server's Last returns for an event that says that time ran out.
var ErrLate = errors.New("no time left")

// TTFT is the time to the first token.
func (t *Timeline) TTFT() time.Duration { return t.Events[0] - t.Sent }

// Whole is the time to the end of the reply.
func (t *Timeline) Whole() time.Duration { return t.Ended - t.Sent }

// Run is a number of requests and how long they took together.
type Run struct {
	Timelines []Timeline
	Elapsed   time.Duration
}

// Closed sends the jobs from a number of clients, each of which sends its next one when the last is answered.
func Closed(ctx context.Context, s Server, jobs []Job, clients int) Run {
	c := newClient(s, clients)
	defer c.close()
	run := Run{Timelines: make([]Timeline, len(jobs))}
	var next atomic.Int64
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(jobs) || ctx.Err() != nil {
					return
				}
				run.Timelines[i] = c.send(ctx, jobs[i])
			}
		})
	}
	group.Wait()
	run.Elapsed = c.now()
	return run
}

// Open sends each job at its time, and waits for all replies. The requests of clients that come back stand behind the
// jobs'.
func Open(ctx context.Context, s Server, jobs []Job, arrivals []time.Duration) Run {
	c := newClient(s, len(jobs))
	defer c.close()
	timelines, again := make([]Timeline, len(jobs)), make([]Timeline, len(jobs))
	var group sync.WaitGroup
	for i, job := range jobs {
		group.Go(func() {
			timelines[i] = c.sendAt(ctx, arrivals[i], job)
			told, err := strconv.Atoi(timelines[i].RetryAfter)
			if !job.ComesBack || err != nil || !timelines[i].Refused() {
				return
			}
			again[i] = c.sendAt(ctx, timelines[i].Ended+time.Duration(told)*time.Second, job)
			again[i].Returned = true
		})
	}
	group.Wait()
	again = slices.DeleteFunc(again, func(t Timeline) bool { return !t.Returned })
	return Run{Timelines: slices.Concat(timelines, again), Elapsed: c.now()}
}

// Beside keeps a number of clients busy and sends one more request after a while. With that one's reply all ends. job
// makes the clients' requests.
func Beside(ctx context.Context, s Server, clients int, job func(i int) Job, one Job, after time.Duration) (busy Run, reply Timeline) {
	c := newClient(s, clients+1)
	defer c.close()
	leave := c.keepBusy(ctx, clients, job)
	select {
	case <-time.After(after):
		reply = c.send(ctx, one)
	case <-ctx.Done():
		reply.Err = ctx.Err()
	}
	timelines := leave()
	return Run{Timelines: timelines, Elapsed: c.now()}, reply
}

// WhileBusy measures something while clients are kept busy, from a while before until its end. They may be those of
// another server than what is measured or, with other headers, of the same one; busyJob makes their requests.
func WhileBusy(ctx context.Context, s Server, clients int, busyJob func(i int) Job, after time.Duration, measure func() Run) (run, busy Run) {
	c := newClient(s, clients)
	defer c.close()
	leave := c.keepBusy(ctx, clients, busyJob)
	select {
	case <-time.After(after):
		run = measure()
	case <-ctx.Done():
	}
	timelines := leave()
	return run, Run{Timelines: timelines, Elapsed: c.now()}
}

// keepBusy has a number of clients each send its next request when the last is answered, until leave is called; job
// makes them, counted from 0. What they haven't got by then they leave; such requests have no error.
func (c *client) keepBusy(ctx context.Context, clients int, job func(i int) Job) (leave func() []Timeline) {
	clientsCtx, cancel := context.WithCancel(ctx)
	var next atomic.Int64
	sent := make([][]Timeline, clients)
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			for clientsCtx.Err() == nil {
				t := c.send(clientsCtx, job(int(next.Add(1))-1))
				if errors.Is(t.Err, context.Canceled) && ctx.Err() == nil {
					t.Err = nil
				}
				sent[i] = append(sent[i], t)
			}
		})
	}
	return func() []Timeline {
		cancel()
		group.Wait()
		return slices.Concat(sent...)
	}
}

// Poisson returns the times of independent arrivals, perSecond on average, within a duration. Equal seeds give equal
// times.
func Poisson(perSecond float64, within time.Duration, seed uint64) []time.Duration {
	random := rand.New(rand.NewPCG(seed, 1))
	var times []time.Duration
	for at := 0.0; ; {
		at += random.ExpFloat64() / perSecond
		d := time.Duration(at * float64(time.Second))
		if d >= within {
			return times
		}
		times = append(times, d)
	}
}

type client struct {
	server Server
	http   http.Client
	began  time.Time
}

func newClient(s Server, connections int) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	return &client{server: s, http: http.Client{Transport: transport}, began: time.Now()}
}

func (c *client) now() time.Duration { return time.Since(c.began) }
func (c *client) close()             { c.http.CloseIdleConnections() }

func (c *client) sendAt(ctx context.Context, at time.Duration, j Job) Timeline {
	select {
	case <-time.After(at - c.now()):
		return c.send(ctx, j)
	case <-ctx.Done():
		return Timeline{Err: ctx.Err()}
	}
}

func (c *client) send(ctx context.Context, j Job) Timeline {
	limit := RequestTimeout
	if j.Deadline > 0 {
		limit = j.Deadline
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := Timeline{Sent: c.now()}
	t.Err = c.receive(ctx, j, &t)
	t.Ended = c.now()
	return t
}

func (c *client) receive(ctx context.Context, j Job, t *Timeline) error {
	reply, err := c.post(ctx, j)
	if isClosed(err) && ctx.Err() == nil { // servers may close a connection that is kept for the next request
		t.SentAgain = true
		c.http.CloseIdleConnections()
		reply, err = c.post(ctx, j)
	}
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	t.Status, t.RetryAfter = reply.StatusCode, reply.Header.Get("Retry-After")
	if reply.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(reply.Body, 1000))
		return fmt.Errorf("%s: status %d: %s", c.server.Name, reply.StatusCode, body)
	}
	return c.readEvents(reply.Body, t)
}

func (c *client) post(ctx context.Context, j Job) (*http.Response, error) {
	request, err := c.server.Request(j)
	if err != nil {
		return nil, err
	}
	return c.http.Do(request.WithContext(ctx))
}

// isClosed reports whether the connection was closed before there was a reply.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

var errCutOff = errors.New("the stream ended without its last event")

func (c *client) readEvents(body io.Reader, t *Timeline) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		event, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		at := c.now()
		tokens, last, err := c.server.Last(event)
		if err != nil {
			return fmt.Errorf("%s: %w", c.server.Name, err)
		}
		if !last {
			t.Events = append(t.Events, at)
			continue
		}
		if len(t.Events) == 0 { // an answer of one event
			t.Events = append(t.Events, at)
		}
		t.Tokens = tokens
		_, err = io.Copy(io.Discard, body) // so that the connection can be used again
		return err
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errCutOff
}
