package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
)

// Bounds of lists in one frame. The schema has none, and elements may cost no bytes.
const (
	maxStepTokens  = 1 << 16 // of a step; an engine sends at most 4096
	maxPromptIDs   = 1 << 21 // of a rendered prompt
	maxModels      = 1 << 14 // also of loaded ones
	maxVersions    = 1 << 16 // versions of all models together
	maxListEntries = 1 << 10 // stops, triggers, bases, heartbeats
	maxDevices     = 1 << 8  // of an engine, also of one backend
	maxBackends    = 1 << 6

	maxEmbeddingBytes = 4 << 16
)

// decoder turns frames into the types of package inflight. The next frame overwrites its contents; byte slices point
// into the frame.
type decoder struct {
	kind        schema.Frame_Which
	id          uint64
	attempt     uint32
	step        inflight.Step
	accepted    inflight.Accepted
	stats       inflight.Stats
	event       inflight.ModelEvent
	catalog     inflight.Catalog
	heartbeats  []inflight.Heartbeat
	reply       reply
	grace       time.Duration
	replacement bool
	reason      string
}

// decode reads one frame. It runs inside wire.Guard.
func (d *decoder) decode(f schema.Frame) error {
	d.kind, d.id, d.attempt = f.Which(), f.Id(), f.Attempt()
	switch d.kind {
	case schema.Frame_Which_step:
		from, err := f.Step()
		if err != nil {
			return err
		}
		return d.decodeStep(from)
	case schema.Frame_Which_accepted:
		from, err := f.Accepted()
		if err != nil {
			return err
		}
		return d.decodeAccepted(from)
	case schema.Frame_Which_stats:
		from, err := f.Stats()
		if err != nil {
			return err
		}
		return d.decodeStats(from)
	case schema.Frame_Which_event:
		from, err := f.Event()
		if err != nil {
			return err
		}
		return d.decodeEvent(from)
	case schema.Frame_Which_catalog:
		from, err := f.Catalog()
		if err != nil {
			return err
		}
		return d.decodeCatalog(from)
	case schema.Frame_Which_pong:
		from, err := f.Pong()
		if err != nil {
			return err
		}
		r := fieldReader{}
		d.heartbeats = r.heartbeats(d.heartbeats[:0], from.Beats)
		return r.err
	case schema.Frame_Which_reply:
		from, err := f.Reply()
		if err != nil {
			return err
		}
		return d.decodeReply(from)
	case schema.Frame_Which_draining:
		from, err := f.Draining()
		if err != nil {
			return err
		}
		d.grace, d.replacement = duration(from.GraceNs()), from.Replacement()
	case schema.Frame_Which_goAway:
		var err error
		d.reason, err = f.GoAway()
		return err
	}
	return nil
}

func (d *decoder) decodeStep(from schema.Step) error {
	d.step.Duration = duration(from.DurationNs())
	d.step.Tokens, d.step.Done = d.step.Tokens[:0], d.step.Done[:0]
	tokens, err := from.Tokens()
	if err != nil || tokens.Len() > maxStepTokens {
		return listError("tokens", tokens.Len(), err)
	}
	for i := range tokens.Len() {
		t := tokens.At(i)
		text, err := t.Text()
		if err != nil {
			return err
		}
		token := inflight.Token{
			ID: t.RequestId(), Attempt: t.Attempt(), Choice: t.Choice(), Index: int(t.Index()), Token: t.TokenId(),
			Text: text, TextEnd: int(t.TextEnd()), Logprob: t.Logprob(), Margin: t.Margin(), SinceLast: duration(t.SinceLastNs()),
		}
		if t.HasPiece() || t.HasTopLogprobs() {
			r := fieldReader{}
			token.Piece, token.Top = r.data(t.Piece()), r.topLogprobs(t.TopLogprobs)
			if r.err != nil {
				return r.err
			}
		}
		d.step.Tokens = append(d.step.Tokens, token)
	}
	if err := d.decodePromptParts(from); err != nil {
		return err
	}
	done, err := from.Done()
	if err != nil || done.Len() > maxStepTokens {
		return listError("summaries", done.Len(), err)
	}
	for i := range done.Len() {
		s, err := decodeSummary(done.At(i))
		if err != nil {
			return err
		}
		d.step.Done = append(d.step.Done, s)
	}
	return nil
}

// decodePromptParts reads the log-probabilities of prompts. Few requests ask for them, so it may allocate.
func (d *decoder) decodePromptParts(from schema.Step) error {
	d.step.Prompts = d.step.Prompts[:0]
	if !from.HasPrompts() {
		return nil
	}
	list, err := from.Prompts()
	if err != nil || list.Len() > maxListEntries {
		return listError("parts of prompts", list.Len(), err)
	}
	r := fieldReader{}
	for i := range list.Len() {
		p := list.At(i)
		tokens, err := p.Tokens()
		if err != nil || tokens.Len() > maxStepTokens {
			return listError("tokens of a prompt", tokens.Len(), err)
		}
		part := inflight.PromptPart{ID: p.RequestId(), Attempt: p.Attempt(), From: int(p.From()), Tokens: make([]api.TokenLogprob, tokens.Len())}
		for k := range part.Tokens {
			t := tokens.At(k)
			part.Tokens[k] = api.TokenLogprob{Token: t.Token(), Bytes: r.data(t.Piece()), Logprob: t.Logprob(), Top: r.topLogprobs(t.Top)}
		}
		d.step.Prompts = append(d.step.Prompts, part)
	}
	return r.err
}

func decodeSummary(from schema.Summary) (inflight.Summary, error) {
	s := inflight.Summary{
		ID: from.RequestId(), Attempt: from.Attempt(), Reason: inflight.Finish(from.Reason()),
		PromptTokens: int(from.PromptTokens()), CachedTokens: int(from.CachedTokens()), OutputTokens: int(from.OutputTokens()),
		Queue: duration(from.QueueNs()), Prefill: duration(from.PrefillNs()), Decode: duration(from.DecodeNs()),
		Restart: duration(from.RestartNs()), Render: duration(from.RendererNs()), Reasoning: int(from.ReasoningTokens()),
	}
	if err := decodeExtras(&s, from); err != nil || !from.HasFailure() {
		return s, err
	}
	failure, err := from.Failure()
	if err != nil {
		return s, err
	}
	r := fieldReader{}
	s.Failure = r.failure(failure)
	return s, r.err
}

// decodeExtras reads what few summaries have.
func decodeExtras(s *inflight.Summary, from schema.Summary) error {
	r := fieldReader{}
	if from.HasStop() {
		s.Stop = r.text(from.Stop())
	}
	if from.HasEmbedding() {
		raw := r.data(from.Embedding())
		if len(raw)%4 != 0 || len(raw) > maxEmbeddingBytes {
			return fmt.Errorf("an embedding of %d bytes", len(raw))
		}
		s.Embedding = make([]float32, len(raw)/4)
		for i := range s.Embedding {
			s.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return r.err
}

func (d *decoder) decodeAccepted(from schema.Accepted) error {
	a := &d.accepted
	r := fieldReader{}
	a.Model, a.Version = r.text(from.Model()), r.text(from.Version())
	a.Revision = r.data(from.Revision())
	a.MaxNewTokens, a.Lookup = int(from.MaxNewTokens()), cacheLookup(from.CacheHit())
	rendered, err := from.Rendered()
	r.keepErr(err)
	a.Rendered.PromptTokens = r.ids(a.Rendered.PromptTokens[:0], rendered.PromptTokens)
	a.Rendered.Grammar, a.Rendered.ParserState = r.text(rendered.Grammar()), r.data(rendered.ParserState())
	a.Rendered.Stops, a.Rendered.Triggers = r.texts(rendered.Stops), r.triggers(rendered.Triggers)
	s, err := from.Sampling()
	r.keepErr(err)
	if r.err != nil {
		return r.err
	}
	a.Sampling, err = decodeSampling(s)
	return err
}

func decodeSampling(from schema.Sampling) (inflight.Sampling, error) {
	given := func(ordinal int) bool { return from.Present()>>ordinal&1 == 1 }
	s := inflight.Sampling{
		Temperature: optional(given(0), from.Temperature()), TopK: optional(given(1), from.TopK()), TopP: optional(given(2), from.TopP()),
		MinP: optional(given(3), from.MinP()), RepeatPenalty: optional(given(4), from.RepeatPenalty()), Choice: from.Choice(),
		PresencePenalty: optional(given(5), from.PresencePenalty()), FrequencyPenalty: optional(given(6), from.FrequencyPenalty()),
	}
	seeds, err := from.Seeds()
	if err == nil && seeds.Len() > 0 {
		s.Seed = seeds.At(0)
	}
	return s, err
}

func cacheLookup(l schema.CacheLookup) inflight.CacheLookup {
	switch l {
	case schema.CacheLookup_hit:
		return inflight.LookupHit
	case schema.CacheLookup_miss:
		return inflight.LookupMiss
	}
	return inflight.LookupUncounted
}

func (d *decoder) decodeStats(from schema.Stats) error {
	d.stats.Bases = d.stats.Bases[:0]
	bases, err := from.Bases()
	if err != nil || bases.Len() > maxListEntries {
		return listError("bases", bases.Len(), err)
	}
	r := fieldReader{}
	for i := range bases.Len() {
		b := bases.At(i)
		d.stats.Bases = append(d.stats.Bases, inflight.BaseStats{
			Model: r.text(b.Model()), FreeSequences: int(b.FreeSequences()), Sequences: int(b.Sequences()),
			Prefilling: int(b.Prefilling()), Decoding: int(b.Decoding()), Waiting: int(b.Waiting()),
			FreeCells: int(b.FreeCells()), Cells: int(b.Cells()),
		})
	}
	d.stats.Heartbeats = r.heartbeats(d.stats.Heartbeats[:0], from.Executors)
	return r.err
}

func (d *decoder) decodeEvent(from schema.Event) error {
	r := fieldReader{}
	d.event = inflight.ModelEvent{
		Kind: inflight.EventKind(from.Kind()), Model: r.text(from.Model()), Version: r.text(from.Version()), Phase: r.text(from.Phase()),
		Ratio: float64(from.Ratio()), Took: duration(from.TookNs()), Bytes: from.Bytes(), Reason: r.text(from.Reason()), Text: r.text(from.Text()),
		Revision: r.data(from.Revision()), Facts: r.facts(from.Facts()),
	}
	return r.err
}

func (d *decoder) decodeCatalog(from schema.Catalog) error {
	c := inflight.Catalog{CacheSize: int(from.CacheSize())}
	models, err := from.Models()
	if err != nil || models.Len() > maxModels {
		return listError("models", models.Len(), err)
	}
	r := fieldReader{}
	for i := range models.Len() {
		c.Models = append(c.Models, r.model(models.At(i)))
		if r.err != nil {
			return r.err
		}
	}
	loaded, err := from.Loaded()
	if err != nil || loaded.Len() > maxModels {
		return listError("loaded models", loaded.Len(), err)
	}
	for i := range loaded.Len() {
		l := loaded.At(i)
		c.Loaded = append(c.Loaded, inflight.Loaded{
			Model: r.text(l.Model()), Version: r.text(l.Version()), Bytes: l.Bytes(), Facts: r.facts(l.Facts()), Loading: l.Loading(),
		})
	}
	d.catalog = c
	return r.err
}

func (d *decoder) decodeReply(from schema.Reply) error {
	r := fieldReader{}
	d.reply = reply{}
	switch from.Which() {
	case schema.Reply_Which_metrics:
		text := r.data(from.Metrics())
		d.reply.metrics = append([]byte{}, text...) // outlives the frame
	case schema.Reply_Which_failure:
		failure, err := from.Failure()
		r.keepErr(err)
		f := r.failure(failure)
		d.reply.unsupported = f.Code == codeUnimplemented
		d.reply.failure = (*inflight.EngineFailure)(&f)
	case schema.Reply_Which_tokens:
		d.reply.tokens = r.ids(nil, from.Tokens)
	case schema.Reply_Which_text:
		d.reply.text = bytes.Clone(r.data(from.Text()))
	case schema.Reply_Which_rendered:
		rendered, err := from.Rendered()
		r.keepErr(err)
		d.reply.tokens, d.reply.text = r.ids(nil, rendered.Tokens), bytes.Clone(r.data(rendered.Text()))
	}
	return r.err
}
