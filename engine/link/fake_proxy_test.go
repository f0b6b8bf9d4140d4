package link

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/schema"
	"tandem/schema/wire"
)

// fakeProxy is the test's end of a connection.
type fakeProxy struct {
	t             *testing.T
	conn          *wire.Conn
	frames        chan decodedFrame
	reading       sync.WaitGroup
	loaded        []string // of the last catalog that was read
	mayDisconnect bool     // the engine may cut the connection while this end still sends
}

// decodedFrame is what the tests need of a frame.
type decodedFrame struct {
	kind       string
	key        attemptKey
	hello      uint64
	tokens     []decodedToken
	prompts    []decodedScore
	from       int // of prompts
	done       []decodedSummary
	event      schema.EventKind
	model      string
	version    string
	reply      string
	prompt     []int32
	stops      []string
	limit      int
	lookup     schema.CacheLookup
	loaded     []string
	problems   []string // model@version: problem
	heartbeats int
	bytes      []byte // revision, metrics
	ids        []int32
	text       string
	state      []byte // of the parser
}

type decodedToken struct {
	key   attemptKey
	index int
	id    int32
	text  string
	end   int // of the text in the answer
	decodedScore
}

// decodedScore is a token with its log-probability.
type decodedScore struct {
	piece   string
	logprob float32
	top     string // id:text of each
}

type decodedSummary struct {
	key     attemptKey
	reason  schema.FinishReason
	code    string
	param   string
	output  int
	thought int // tokens
	stop    string
	prompt  int
	vector  string // of an embedding: the bytes
}

func (p *fakeProxy) hello() {
	err := p.conn.SendControl(func(f schema.Frame) error {
		h, err := f.NewHello()
		if err != nil {
			return err
		}
		h.SetProtocol(wire.Protocol)
		h.SetMinProtocol(wire.MinProtocol)
		return nil
	})
	if err != nil {
		p.t.Fatalf("hello: %v", err)
	}
}

func (p *fakeProxy) close() {
	p.conn.Close()
	p.reading.Wait()
}

func (p *fakeProxy) read() {
	defer close(p.frames)
	for {
		f, release, err := p.conn.Read()
		if err != nil {
			return
		}
		got, err := decodeFrame(f)
		release()
		if err != nil {
			p.t.Errorf("frame from the engine: %v", err)
			return
		}
		p.frames <- got
	}
}

func decodeFrame(f schema.Frame) (out decodedFrame, err error) {
	out.kind, out.key = f.Which().String(), attemptKey{f.Id(), f.Attempt()}
	d := fieldReader{}
	switch f.Which() {
	case schema.Frame_Which_hello:
		h, err := f.Hello()
		if err != nil {
			return out, err
		}
		out.hello = h.InstanceId()
	case schema.Frame_Which_step:
		return out, decodeStep(f, &out)
	case schema.Frame_Which_accepted:
		return out, decodeAccepted(f, &out)
	case schema.Frame_Which_event:
		e, err := f.Event()
		if err != nil {
			return out, err
		}
		out.event, out.model, out.version = e.Kind(), d.text(e.Model()), d.text(e.Version())
	case schema.Frame_Which_catalog:
		c, err := f.Catalog()
		if err != nil {
			return out, err
		}
		loaded, err := c.Loaded()
		if err != nil {
			return out, err
		}
		if out.problems, err = decodeProblems(c); err != nil {
			return out, err
		}
		for i := range loaded.Len() {
			if !loaded.At(i).Loading() {
				out.loaded = append(out.loaded, d.text(loaded.At(i).Model())+"@"+d.text(loaded.At(i).Version()))
			}
		}
	case schema.Frame_Which_pong:
		pong, err := f.Pong()
		if err != nil {
			return out, err
		}
		heartbeats, err := pong.Beats()
		if err != nil {
			return out, err
		}
		out.heartbeats = heartbeats.Len()
	case schema.Frame_Which_reply:
		return out, decodeReply(f, &out)
	case schema.Frame_Which_goAway:
		out.text = d.text(f.GoAway())
	}
	return out, d.err
}

func decodeStep(f schema.Frame, out *decodedFrame) error {
	s, err := f.Step()
	if err != nil {
		return err
	}
	d := fieldReader{}
	tokens, err := s.Tokens()
	if err != nil {
		return err
	}
	for i := range tokens.Len() {
		t := tokens.At(i)
		out.tokens = append(out.tokens, decodedToken{
			attemptKey{t.RequestId(), t.Attempt()}, int(t.Index()), t.TokenId(), d.string(t.Text()), int(t.TextEnd()),
			decodedScore{d.string(t.Piece()), t.Logprob(), decodeTop(&d, t.TopLogprobs)},
		})
	}
	prompts, err := s.Prompts()
	if err != nil {
		return err
	}
	for i := range prompts.Len() {
		out.from = int(prompts.At(i).From())
		list, err := prompts.At(i).Tokens()
		if err != nil {
			return err
		}
		for k := range list.Len() {
			t := list.At(k)
			out.prompts = append(out.prompts, decodedScore{d.string(t.Piece()), t.Logprob(), decodeTop(&d, t.Top)})
		}
	}
	done, err := s.Done()
	if err != nil {
		return err
	}
	for i := range done.Len() {
		s := done.At(i)
		failure, err := s.Failure()
		if err != nil {
			return err
		}
		out.done = append(out.done, decodedSummary{
			attemptKey{s.RequestId(), s.Attempt()}, s.Reason(), d.text(failure.Code()), d.text(failure.Param()), int(s.OutputTokens()), int(s.ReasoningTokens()),
			d.text(s.Stop()), int(s.PromptTokens()), d.string(s.Embedding()),
		})
	}
	return d.err
}

func decodeTop(d *fieldReader, read func() (schema.TopLogprob_List, error)) string {
	list, err := read()
	d.noteError(err)
	var out []string
	for i := range list.Len() {
		out = append(out, fmt.Sprintf("%d:%s", list.At(i).Token(), d.string(list.At(i).Text())))
	}
	return strings.Join(out, " ")
}

func decodeAccepted(f schema.Frame, out *decodedFrame) error {
	a, err := f.Accepted()
	if err != nil {
		return err
	}
	r, err := a.Rendered()
	if err != nil {
		return err
	}
	d := fieldReader{}
	out.model, out.version, out.limit, out.lookup = d.text(a.Model()), d.text(a.Version()), int(a.MaxNewTokens()), a.CacheHit()
	out.state = d.data(r.ParserState())
	out.prompt, out.stops, out.bytes = d.int32s(r.PromptTokens()), d.texts(r.Stops()), d.data(a.Revision())
	return d.err
}

func decodeReply(f schema.Frame, out *decodedFrame) error {
	r, err := f.Reply()
	if err != nil {
		return err
	}
	d := fieldReader{}
	out.reply = r.Which().String()
	switch r.Which() {
	case schema.Reply_Which_failure:
		failure, err := r.Failure()
		if err != nil {
			return err
		}
		out.text = d.text(failure.Code())
	case schema.Reply_Which_metrics:
		out.bytes = d.data(r.Metrics())
	case schema.Reply_Which_rendered:
		rendered, err := r.Rendered()
		if err != nil {
			return err
		}
		out.bytes, out.ids = d.data(rendered.Text()), d.int32s(rendered.Tokens())
	case schema.Reply_Which_tokens:
		out.ids = d.int32s(r.Tokens())
	case schema.Reply_Which_text:
		out.bytes = d.data(r.Text())
	}
	return d.err
}

func (p *fakeProxy) send(id uint64, attempt uint32, build func(schema.Frame) error) {
	p.t.Helper()
	err := p.conn.Send(func(f schema.Frame) error {
		f.SetId(id)
		f.SetAttempt(attempt)
		return build(f)
	})
	if err != nil && !p.mayDisconnect {
		p.t.Fatalf("send: %v", err)
	}
}

func (p *fakeProxy) infer(id uint64, prompt string, change ...func(schema.InferRequest) error) {
	p.t.Helper()
	p.send(id, 1, func(f schema.Frame) error {
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		if err := errors.Join(r.SetModel("abc"), r.SetPrompt([]byte(prompt))); err != nil {
			return err
		}
		for _, c := range change {
			if err := c(r); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *fakeProxy) cancel(id uint64) {
	err := p.conn.SendControl(func(f schema.Frame) error {
		f.SetId(id)
		f.SetAttempt(1)
		f.SetCancel()
		return nil
	})
	if err != nil {
		p.t.Fatalf("cancel: %v", err)
	}
}

// awaitKind returns the next frame of a kind and skips others.
func (p *fakeProxy) awaitKind(kind string) decodedFrame {
	p.t.Helper()
	return p.awaitFrame(kind, func(f decodedFrame) bool { return f.kind == kind })
}

// frameTimeout is far longer than any frame takes, on a busy machine too.
const frameTimeout = time.Minute

// awaitFrame returns the next frame that ok accepts, and skips others.
func (p *fakeProxy) awaitFrame(what string, ok func(decodedFrame) bool) decodedFrame {
	p.t.Helper()
	timeout := time.After(frameTimeout)
	for {
		select {
		case f, open := <-p.frames:
			if !open {
				p.t.Fatalf("the engine hung up while the test waited for %s", what)
			}
			if f.kind == "catalog" {
				p.loaded = f.loaded
			}
			if ok(f) {
				return f
			}
		case <-timeout:
			p.t.Fatalf("no %s within %v", what, frameTimeout)
		}
	}
}

// awaitAnswer collects one request's tokens up to its summary.
func (p *fakeProxy) awaitAnswer(id uint64) (text string, indices []int, end decodedSummary) {
	p.t.Helper()
	p.awaitFrame("summary", func(f decodedFrame) bool {
		for _, t := range f.tokens {
			if t.key.id == id {
				text += t.text
				indices = append(indices, t.index)
			}
		}
		for _, d := range f.done {
			if d.key.id == id {
				end = d
				return true
			}
		}
		return false
	})
	return text, indices, end
}

// newSilentProxy says hello and never reads.
func newSilentProxy(t *testing.T, c net.Conn) *fakeProxy {
	p := &fakeProxy{t: t, conn: wire.New(c, wire.Options{})}
	t.Cleanup(func() { p.conn.Close() })
	p.hello()
	return p
}

// decodeProblems lists the versions of a catalog that can't be loaded.
func decodeProblems(c schema.Catalog) ([]string, error) {
	list, err := c.Models()
	if err != nil {
		return nil, err
	}
	var problems []string
	d := fieldReader{}
	for i := range list.Len() {
		versions, err := list.At(i).Versions()
		if err != nil {
			return nil, err
		}
		for k := range versions.Len() {
			if problem := d.text(versions.At(k).Problem()); problem != "" {
				problems = append(problems, d.text(list.At(i).Name())+"@"+d.text(versions.At(k).Name())+": "+problem)
			}
		}
	}
	return problems, d.err
}
