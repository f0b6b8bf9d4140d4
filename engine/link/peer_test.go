package link

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"tandem/schema"
	"tandem/schema/wire"
)

// proxy is the test's end of a connection.
type proxy struct {
	t        *testing.T
	conn     *wire.Conn
	frames   chan frame
	reading  sync.WaitGroup
	loaded   []string // of the last catalog that went by
	mayBreak bool     // the engine may cut the connection while this end still sends
}

// frame is what a test needs of one.
type frame struct {
	kind       string
	key        key
	hello      uint64
	tokens     []token
	done       []summary
	event      schema.EventKind
	model      string
	version    string
	reply      string
	prompt     []int32
	stops      []string
	limit      int
	lookup     schema.CacheLookup
	loaded     []string
	heartbeats int
	bytes      []byte // revision, metrics
	ids        []int32
	text       string
}

type token struct {
	key   key
	index int
	id    int32
	text  string
}

type summary struct {
	key    key
	reason schema.FinishReason
	code   string
	param  string
	output int
}

func (p *proxy) hello() {
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

func (p *proxy) close() {
	p.conn.Close()
	p.reading.Wait()
}

func (p *proxy) read() {
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

func decodeFrame(f schema.Frame) (out frame, err error) {
	out.kind, out.key = f.Which().String(), key{f.Id(), f.Attempt()}
	d := reading{}
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

func decodeStep(f schema.Frame, out *frame) error {
	s, err := f.Step()
	if err != nil {
		return err
	}
	d := reading{}
	tokens, err := s.Tokens()
	if err != nil {
		return err
	}
	for i := range tokens.Len() {
		t := tokens.At(i)
		out.tokens = append(out.tokens, token{key{t.RequestId(), t.Attempt()}, int(t.Index()), t.TokenId(), d.string(t.Text())})
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
		out.done = append(out.done, summary{
			key{s.RequestId(), s.Attempt()}, s.Reason(), d.text(failure.Code()), d.text(failure.Param()), int(s.OutputTokens()),
		})
	}
	return d.err
}

func decodeAccepted(f schema.Frame, out *frame) error {
	a, err := f.Accepted()
	if err != nil {
		return err
	}
	r, err := a.Rendered()
	if err != nil {
		return err
	}
	d := reading{}
	out.model, out.version, out.limit, out.lookup = d.text(a.Model()), d.text(a.Version()), int(a.MaxNewTokens()), a.CacheHit()
	out.prompt, out.stops, out.bytes = d.ids(r.PromptTokens()), d.texts(r.Stops()), d.data(a.Revision())
	return d.err
}

func decodeReply(f schema.Frame, out *frame) error {
	r, err := f.Reply()
	if err != nil {
		return err
	}
	d := reading{}
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
	case schema.Reply_Which_tokens:
		out.ids = d.ids(r.Tokens())
	}
	return d.err
}

func (p *proxy) send(id uint64, attempt uint32, build func(schema.Frame) error) {
	p.t.Helper()
	err := p.conn.Send(func(f schema.Frame) error {
		f.SetId(id)
		f.SetAttempt(attempt)
		return build(f)
	})
	if err != nil && !p.mayBreak {
		p.t.Fatalf("send: %v", err)
	}
}

func (p *proxy) infer(id uint64, prompt string, change ...func(schema.InferRequest) error) {
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

func (p *proxy) cancel(id uint64) {
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

// next gives the next frame of a kind and skips others.
func (p *proxy) next(kind string) frame {
	p.t.Helper()
	return p.until(kind, func(f frame) bool { return f.kind == kind })
}

func (p *proxy) until(what string, ok func(frame) bool) frame {
	p.t.Helper()
	timeout := time.After(10 * time.Second)
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
			p.t.Fatalf("no %s within 10 s", what)
		}
	}
}

// answer collects one request's tokens up to its summary.
func (p *proxy) answer(id uint64) (text string, indices []int, end summary) {
	p.t.Helper()
	p.until("summary", func(f frame) bool {
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
func newSilentProxy(t *testing.T, c net.Conn) *proxy {
	p := &proxy{t: t, conn: wire.New(c, wire.Options{})}
	t.Cleanup(func() { p.conn.Close() })
	p.hello()
	return p
}
