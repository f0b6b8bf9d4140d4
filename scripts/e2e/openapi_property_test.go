package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// propertyRun says how many bodies TestBodiesMadeOfTheDocument sends, and with which seed it makes them: equal seeds
// make equal bodies. OPENAPI_BODIES and OPENAPI_SEED set others.
type propertyRun struct {
	bodies int
	seed   uint64
}

func propertyRunFromEnvironment(t *testing.T) propertyRun {
	r := propertyRun{bodies: 1500, seed: 1}
	if withLlama {
		r.bodies = 400
	}
	if raceDetector {
		r.bodies /= 3
	}
	var err error
	if text := os.Getenv("OPENAPI_BODIES"); text != "" {
		if r.bodies, err = strconv.Atoi(text); err != nil {
			t.Fatalf("OPENAPI_BODIES: %v", err)
		}
	}
	if text := os.Getenv("OPENAPI_SEED"); text != "" {
		if r.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("OPENAPI_SEED: %v", err)
		}
	}
	return r
}

// refusals are the reasons, besides its schema, for which a body may be refused: what the schema can't say and the
// document does in words.
var refusals = []struct {
	why     string
	status  int
	message *regexp.Regexp
}{
	{"a model that isn't installed", 404, regexp.MustCompile(`not installed|no version|has no `)},
	{"fields that don't go together", 400, regexp.MustCompile(`can't be combined|needs logprobs|must be the same as n|not possible in a stream|asks for a tool|not among tools|twice|more than the limit`)},
	{"a limit in bytes", 400, regexp.MustCompile(`bytes|must be a string or a list of at most`)},
	{"max_tokens of 0 without echo", 400, regexp.MustCompile(`max_tokens must be`)},
	{"a member that its type or role needs", 400, regexp.MustCompile(`is required|content must be|(json_schema|format)\.schema must be|tool_choice must be|\.name must be|\.input_schema must be|role is`)},
	{"what isn't stored, or can't be read", 400, regexp.MustCompile(`not stored|nothing in it`)},
	{"what the other side may say", 400, regexp.MustCompile(`must be in messages of|messages end with one of the assistant|are not supported here; send text|only messages of the system`)},
	{"what the model can't do", 400, regexp.MustCompile(`context|unusable grammar|chat template|too complex|token|can't go on|dimensions is|can't score|can't give|can't generate`)},
}

// sentBody is one body and what became of it.
type sentBody struct {
	operation *apiOperation
	how       string // as documented, changed, broken
	text      string
	forbidden error // why its schema doesn't allow it; nil: it does
	closed    bool  // the server closed the connection after the reply
	status    int
	kind      string
	reply     string
	took      time.Duration
	err       error
}

// replyLimit is how long a reply may take. Requests ask for half of it, so a longer one is a hang.
const replyLimit = 30 * time.Second

// What clients send can't harm the server: bodies made of the document, good and bad ones, get replies as documented.
// A body that its schema allows is refused for a documented reason only, and one that it doesn't allow is refused.
func TestBodiesMadeOfTheDocument(t *testing.T) {
	run := propertyRunFromEnvironment(t)
	s := newServer(t, "JOURNAL_MAX_BYTES=512MiB") // long prompts of several answers at once are no load here
	s.startProxy()
	s.startLimitedEngine()
	s.waitReady(failureLimit)
	t.Logf("OPENAPI_SEED=%d OPENAPI_BODIES=%d", run.seed, run.bodies)

	bodies := makeBodies(s.openAPI(), run)
	s.sendAll(bodies, 6)
	counts := map[string]int{}
	for i := range bodies {
		b := &bodies[i]
		counts[fmt.Sprintf("%s %s: %d", b.operation.path, b.how, b.status)]++
		if problem := b.problem(); problem != "" {
			t.Errorf("%s %s (%s): %s\nbody  %.1000s\nreply %d %.1000s", b.operation.method, b.operation.path, b.how, problem, b.text, b.status, b.reply)
		}
	}
	operations := bodyOperations(s.openAPI())
	for _, o := range operations {
		if withLlama && o.id == rerankID {
			continue // which the demo model can't do
		}
		if n := counts[o.path+" as documented: 200"]; n < run.bodies/len(operations)/8 { // of a third
			t.Errorf("%s answered only %d bodies; the test tries too little", o.path, n)
		}
	}
	t.Log(counts)
	s.checkUnharmed()
}

// startLimitedEngine starts the engine with a limit of its address space, so that a body that makes it take all memory
// ends the engine and not the machine.
func (s *testServer) startLimitedEngine() {
	if raceDetector { // which reserves terabytes
		s.startEngine()
		return
	}
	s.engine = startProcess(s.t, "engine", "/bin/sh", s.env, "-c", `ulimit -v 8000000; exec "$0" supervise`, binaries.engine)
}

// checkUnharmed finds what the bodies may have broken besides their replies.
func (s *testServer) checkUnharmed() {
	s.t.Helper()
	for _, p := range []*process{s.proxy, s.engine} {
		if log := p.log.String(); strings.Contains(log, "panic") {
			s.t.Errorf("%s panicked", p.Name)
		}
	}
	scraped := s.waitIdle()
	if n := scraped.sum("llm_engine_restarts_total"); n != 0 {
		s.t.Errorf("the engine was restarted %v times", n)
	}
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 200 {
		s.t.Errorf("after all that: %d %s", a.Status, a.Body)
	}
}

func bodyOperations(d *apiDocument) []*apiOperation {
	return slices.DeleteFunc(slices.Clone(d.operations), func(o *apiOperation) bool { return o.body == nil })
}

// makeBodies makes a third of each kind: as documented, with values changed, with the text broken.
func makeBodies(d *apiDocument, run propertyRun) []sentBody {
	m := &bodyMaker{doc: d, rnd: rand.New(rand.NewPCG(run.seed, 0))}
	operations := bodyOperations(d)
	list := make([]sentBody, run.bodies)
	for i := range list {
		b := &list[i]
		b.operation = operations[i%len(operations)]
		body := m.body(b.operation)
		b.how = []string{"as documented", "changed", "broken"}[i/len(operations)%3]
		if b.how == "changed" {
			body = m.mutateValue(body)
		}
		text, err := json.Marshal(body)
		if err != nil {
			d.t.Fatal(err)
		}
		b.text = string(text)
		if b.how == "broken" {
			b.text = m.mutateText(b.text)
		}
		b.forbidden = b.operation.allows(b.text)
	}
	return list
}

// allows returns why a body isn't JSON that its schema allows; nil: it is. The server reads JSON more strictly than the
// library that checks schemas: see strictJSON.
func (o *apiOperation) allows(text string) error {
	if !strictJSON(text) {
		return errNotJSON
	}
	value, err := parseJSON(hugeExponent.ReplaceAllString(text, "${1}300"))
	if err != nil {
		return err
	}
	return o.valid.Validate(value)
}

// hugeExponent is that of a number which the library that checks schemas can't hold. It may stand in a text as well,
// where it changes nothing that a schema asks for.
var hugeExponent = regexp.MustCompile(`([eE][-+]?)[0-9]{4,}`)

// sendAll sends bodies over a few connections, each of which has to last.
func (s *testServer) sendAll(bodies []sentBody, connections int) {
	s.t.Helper()
	var next, dialled atomic.Int64
	var workers sync.WaitGroup
	for range connections {
		workers.Go(func() {
			client := &http.Client{Timeout: replyLimit, Transport: &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled.Add(1)
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}}}
			defer client.CloseIdleConnections()
			for i := next.Add(1) - 1; i < int64(len(bodies)); i = next.Add(1) - 1 {
				s.sendBody(client, &bodies[i], fmt.Sprintf("body-%d", i))
			}
		})
	}
	workers.Wait()
	for i := range bodies {
		if bodies[i].closed {
			connections++
		}
	}
	if n := dialled.Load(); n > int64(connections) {
		s.t.Errorf("%d connections were made where %d should have lasted", n, connections)
	}
}

func (s *testServer) sendBody(client *http.Client, b *sentBody, id string) {
	r, err := http.NewRequestWithContext(s.t.Context(), b.operation.method, s.url+b.operation.path, strings.NewReader(b.text))
	if err != nil {
		b.err = err
		return
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", s.key)
	r.Header.Set("X-Request-Id", id)
	r.Header.Set("X-Request-Timeout", fmt.Sprint(replyLimit.Seconds()/2))
	began := time.Now()
	resp, err := client.Do(r)
	if err != nil {
		b.err = err
		return
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	b.closed = resp.Close
	b.status, b.kind, b.reply, b.err, b.took = resp.StatusCode, resp.Header.Get("Content-Type"), string(raw), err, time.Since(began)
	if b.err == nil && resp.Header.Get("X-Request-Id") != id {
		b.err = fmt.Errorf("the reply has the id %q", resp.Header.Get("X-Request-Id"))
	}
}

// problem says what is wrong with the reply to a body; nothing: it is as documented.
func (b *sentBody) problem() string {
	switch {
	case b.err != nil:
		return b.err.Error()
	case b.status == 500:
		return "an internal error"
	case b.closed && b.status != 413:
		return "the server closed the connection"
	}
	if problem := b.operation.checkReply(b.status, b.kind, b.reply); problem != "" {
		return problem
	}
	if b.status == 200 {
		if b.forbidden != nil && !onlyIgnored(b.forbidden) {
			return fmt.Sprintf("the document doesn't allow this body, but it is answered: %v", b.forbidden)
		}
		return ""
	}
	message, param := b.refusal()
	switch {
	case b.status == 504:
		return ""
	case !b.operation.knows(param, b.text):
		return fmt.Sprintf("the error blames %q, which the document doesn't have", param)
	case b.forbidden != nil:
		return ""
	}
	for _, r := range refusals {
		if r.status == b.status && r.message.MatchString(message) {
			return ""
		}
	}
	return "the document allows this body, but it is refused"
}

func (b *sentBody) refusal() (message, param string) {
	var reply struct {
		Error struct{ Message, Param string }
	}
	_ = json.Unmarshal([]byte(b.reply), &reply)
	return reply.Error.Message, reply.Error.Param
}

var indexes = regexp.MustCompile(`\[[0-9]+\]`)

// knows reports whether an error may blame a field: one of the document, or an unknown one of the body.
func (o *apiOperation) knows(param, body string) bool {
	place := indexes.ReplaceAllString(param, "[]")
	if param == "" || o.places[place] {
		return true
	}
	if around := place[:max(0, strings.LastIndexAny(place, ".["))]; o.places[around] && o.isOpen(around) {
		return true
	}
	name, err := json.Marshal(param)
	return err == nil && strings.Contains(body, strings.Trim(string(name), `"`))
}

// isOpen reports whether the document doesn't say what is inside of a field.
func (o *apiOperation) isOpen(place string) bool {
	for other := range o.places {
		if strings.HasPrefix(other, place+".") || strings.HasPrefix(other, place+"[") {
			return false
		}
	}
	return true
}

var (
	faults = regexp.MustCompile(`at '(/[^']*)'`)
	// ignored are fields that are read, but mean nothing beside others: calls in messages that aren't an assistant's.
	ignored = regexp.MustCompile(`^/messages/[0-9]+/tool_calls/[0-9]+/`)
)

// onlyIgnored reports whether all that is wrong with a body is in fields that are ignored.
func onlyIgnored(forbidden error) bool {
	list := faults.FindAllStringSubmatch(forbidden.Error(), -1)
	return len(list) > 0 && !slices.ContainsFunc(list, func(fault []string) bool { return !ignored.MatchString(fault[1]) })
}
