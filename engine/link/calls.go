package link

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

// call is a Call copied out of its frame.
type call struct {
	id      uint64
	which   schema.Call_Which
	model   string
	version string
	text    string
	raw     bool
	request inferRequest // of render
	special bool         // with raw: the tokens around every text, too
	tokens  []int32      // of detokenize
}

// Limits of what a call may hold.
const (
	maxCallText   = 8 << 20 // bytes
	maxCallTokens = 1 << 20
)

func decodeCall(f schema.Frame) (call, error) {
	c := call{id: f.Id()}
	from, err := f.Call()
	if err != nil {
		return c, err
	}
	c.which = from.Which()
	d := fieldReader{}
	switch c.which {
	case schema.Call_Which_load:
		ref, err := from.Load()
		if err != nil {
			return c, err
		}
		c.model, c.version = d.text(ref.Model()), d.text(ref.Version())
	case schema.Call_Which_tokenize:
		in, err := from.Tokenize()
		if err != nil {
			return c, err
		}
		c.model, c.version, c.text, c.raw = d.text(in.Model()), d.text(in.Version()), d.string(in.Text()), in.Raw()
		c.special = in.AddSpecial()
	case schema.Call_Which_detokenize:
		in, err := from.Detokenize()
		if err != nil {
			return c, err
		}
		c.model, c.version, c.tokens = d.text(in.Model()), d.text(in.Version()), d.int32s(in.Tokens())
	case schema.Call_Which_render:
		in, err := from.Render()
		if err != nil {
			return c, err
		}
		c.request, err = decodeRequest(in)
		c.model, c.version = c.request.model, c.request.version
		return c, err
	}
	return c, d.err
}

// startCall runs a call on a goroutine of its own, which replies when it is done.
func (s *session) startCall(c call) {
	if c.which == schema.Call_Which_metrics { // short, and clients' calls mustn't keep the figures away
		s.work.Go(func() { s.runCall(c) })
		return
	}
	s.mu.Lock()
	full := s.callsRunning >= maxCalls
	if !full {
		s.callsRunning++
	}
	s.mu.Unlock()
	if full {
		s.replyFailure(c.id, failureOf(errTooManyRequests))
		return
	}
	s.work.Go(func() {
		defer func() {
			s.mu.Lock()
			s.callsRunning--
			s.mu.Unlock()
		}()
		s.runCall(c)
	})
}

func (s *session) runCall(c call) {
	switch c.which {
	case schema.Call_Which_metrics:
		var text bytes.Buffer
		if s.link.o.WriteMetrics != nil {
			s.link.o.WriteMetrics(&text)
		}
		s.reply(c.id, func(r schema.Reply) error { return r.SetMetrics(text.Bytes()) })
	case schema.Call_Which_load:
		lease, err := s.lease(s.ctx, c.model, s.callVersion(c), false)
		if err != nil {
			s.replyFailure(c.id, failureOf(err))
			return
		}
		lease.Release()
		s.reply(c.id, func(r schema.Reply) error { r.SetOk(); return nil })
	case schema.Call_Which_tokenize:
		s.tokenize(c)
	case schema.Call_Which_render:
		s.renderOnly(c)
	case schema.Call_Which_detokenize:
		s.detokenize(c)
	default:
		s.replyFailure(c.id, failure{code: "unimplemented", text: "this engine doesn't know the call"})
	}
}

func (s *session) callVersion(c call) string {
	if c.version != "" {
		return c.version
	}
	return s.defaultVersion(c.model)
}

// tokenize replies with the tokens of a text: as it is, or as the chat template makes it a message of a user.
func (s *session) tokenize(c call) {
	lease, err := s.lease(s.ctx, c.model, s.callVersion(c), false)
	if err != nil {
		s.replyFailure(c.id, failureOf(err))
		return
	}
	defer lease.Release()
	tokens, err := s.tokensOfCall(c, lease.Base)
	if err != nil {
		s.replyFailure(c.id, failureOf(err))
		return
	}
	s.reply(c.id, func(r schema.Reply) error {
		list, err := r.NewTokens(int32(len(tokens)))
		if err != nil {
			return err
		}
		for i, id := range tokens {
			list.Set(i, id)
		}
		return nil
	})
}

// renderOnly answers with the prompt of a request.
func (s *session) renderOnly(c call) {
	if c.request.invalid != nil {
		s.replyFailure(c.id, failureOf(c.request.invalid))
		return
	}
	lease, err := s.lease(s.ctx, c.model, s.callVersion(c), false)
	if err != nil {
		s.replyFailure(c.id, failureOf(err))
		return
	}
	defer lease.Release()
	var took time.Duration
	prompt, err := s.link.render(s.ctx, lease.Base, c.request.input, &took)
	if err != nil {
		s.replyFailure(c.id, failureOf(err))
		return
	}
	text := lease.Base.WriteOut(prompt.Tokens)
	s.reply(c.id, func(r schema.Reply) error {
		to, err := r.NewRendered()
		if err != nil {
			return err
		}
		list, err := to.NewTokens(int32(len(prompt.Tokens)))
		if err != nil {
			return err
		}
		for i, id := range prompt.Tokens {
			list.Set(i, id)
		}
		return to.SetText(text)
	})
}

func (s *session) tokensOfCall(c call, base models.Base) (tokens []int32, err error) {
	var took time.Duration
	if !c.raw {
		prompt, err := s.link.render(s.ctx, base, models.Input{Prompt: c.text}, &took)
		return prompt.Tokens, err
	}
	if len(c.text) > maxCallText {
		return nil, &invalidFieldError{"text", fmt.Sprintf("has %d bytes, at most %d are tokenised", len(c.text), maxCallText)}
	}
	err = s.link.withRenderSlot(s.ctx, &took, func() error {
		tokens, err = base.Tokenize(s.ctx, c.text, c.special, maxCallTokens)
		return err
	})
	if errors.Is(err, models.ErrPromptTooLong) {
		return nil, &invalidFieldError{"text", fmt.Sprintf("has more than %d tokens", maxCallTokens)}
	}
	return tokens, err
}

// detokenize replies with the text of tokens.
func (s *session) detokenize(c call) {
	if len(c.tokens) > maxCallTokens {
		s.replyFailure(c.id, failureOf(&invalidFieldError{"tokens", fmt.Sprintf("are %d, at most %d are possible", len(c.tokens), maxCallTokens)}))
		return
	}
	lease, err := s.lease(s.ctx, c.model, s.callVersion(c), false)
	if err != nil {
		s.replyFailure(c.id, failureOf(err))
		return
	}
	defer lease.Release()
	text, err := textOf(lease.Base, c.tokens)
	unknown, isUnknown := errors.AsType[*models.TokenError](err)
	switch {
	case errors.Is(err, errTextTooLong):
		s.replyFailure(c.id, failureOf(&invalidFieldError{"tokens", fmt.Sprintf("have more than %d bytes of text; ask for fewer", maxCallText)}))
	case isUnknown:
		s.replyFailure(c.id, failureOf(&invalidFieldError{"tokens", "hold one that can't be used: " + unknown.Error()}))
	case err != nil:
		s.replyFailure(c.id, failureOf(err))
	default:
		s.reply(c.id, func(r schema.Reply) error { return r.SetText(text) })
	}
}

var errTextTooLong = errors.New("text is too long")

// textOf is the text of tokens, of at most maxCallText bytes. It is made in parts, since a token may have hundreds.
func textOf(base models.Base, tokens []int32) ([]byte, error) {
	const tokensOfPart = 4096
	var text []byte
	for part := range slices.Chunk(tokens, tokensOfPart) {
		more, err := base.Detokenize(part)
		if err != nil {
			return nil, err
		}
		if text = append(text, more...); len(text) > maxCallText {
			return nil, errTextTooLong
		}
	}
	return text, nil
}

func (s *session) reply(id uint64, fill func(schema.Reply) error) {
	err := s.conn.Send(func(f schema.Frame) error { // the reader notices a lost connection
		f.SetId(id)
		r, err := f.NewReply()
		if err != nil {
			return err
		}
		return fill(r)
	})
	if errors.Is(err, wire.ErrTooLarge) { // the caller would wait for ever
		s.replyFailure(id, failure{code: "invalid_request", text: "the reply is too large for one frame; ask for less"})
	}
}

func (s *session) replyFailure(id uint64, why failure) {
	s.reply(id, func(r schema.Reply) error {
		to, err := r.NewFailure()
		if err != nil {
			return err
		}
		return why.write(to)
	})
}
