package link

import (
	"fmt"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

// Bounds of lists in one frame. The schema has none, and elements may cost no bytes.
const (
	maxTokens  = 1 << 16 // of a step; an engine sends at most 4096
	maxIDs     = 1 << 21 // of a rendered prompt
	maxModels  = 1 << 14 // also of loaded ones
	maxPairs   = 1 << 16 // versions of all models together
	maxEntries = 1 << 10 // stops, devices, bases, heartbeats
)

// decoder turns frames into inflight's types. What it holds is overwritten by the next frame; byte slices point into the frame.
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
		r := reading{}
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
	if err != nil || tokens.Len() > maxTokens {
		return tooMany("tokens", tokens.Len(), err)
	}
	for i := range tokens.Len() {
		t := tokens.At(i)
		text, err := t.Text()
		if err != nil {
			return err
		}
		d.step.Tokens = append(d.step.Tokens, inflight.Token{
			ID: t.RequestId(), Attempt: t.Attempt(), Choice: t.Choice(), Index: int(t.Index()), Token: t.TokenId(),
			Text: text, TextEnd: int(t.TextEnd()), Logprob: t.Logprob(), Margin: t.Margin(), SinceLast: duration(t.SinceLastNs()),
		})
	}
	done, err := from.Done()
	if err != nil || done.Len() > maxTokens {
		return tooMany("summaries", done.Len(), err)
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

func decodeSummary(from schema.Summary) (inflight.Summary, error) {
	s := inflight.Summary{
		ID: from.RequestId(), Attempt: from.Attempt(), Reason: inflight.Finish(from.Reason()),
		PromptTokens: int(from.PromptTokens()), CachedTokens: int(from.CachedTokens()), OutputTokens: int(from.OutputTokens()),
		Queue: duration(from.QueueNs()), Prefill: duration(from.PrefillNs()), Decode: duration(from.DecodeNs()),
		Restart: duration(from.RestartNs()), Render: duration(from.RendererNs()),
	}
	if !from.HasFailure() {
		return s, nil
	}
	failure, err := from.Failure()
	if err != nil {
		return s, err
	}
	r := reading{}
	s.Failure = r.failure(failure)
	return s, r.err
}

func (d *decoder) decodeAccepted(from schema.Accepted) error {
	a := &d.accepted
	r := reading{}
	a.Model, a.Version = r.text(from.Model()), r.text(from.Version())
	a.Revision = r.data(from.Revision())
	a.MaxNewTokens, a.Lookup = int(from.MaxNewTokens()), lookup(from.CacheHit())
	rendered, err := from.Rendered()
	r.note(err)
	a.Rendered.PromptTokens = r.ids(a.Rendered.PromptTokens[:0], rendered.PromptTokens)
	a.Rendered.Grammar, a.Rendered.ParserState = r.text(rendered.Grammar()), r.data(rendered.ParserState())
	a.Rendered.Stops = r.texts(rendered.Stops)
	s, err := from.Sampling()
	r.note(err)
	if r.err != nil {
		return r.err
	}
	a.Sampling, err = decodeSampling(s)
	return err
}

func decodeSampling(from schema.Sampling) (inflight.Sampling, error) {
	given := func(ordinal int) bool { return from.Present()>>ordinal&1 == 1 }
	s := inflight.Sampling{
		Temperature: maybe(given(0), from.Temperature()), TopK: maybe(given(1), from.TopK()), TopP: maybe(given(2), from.TopP()),
		MinP: maybe(given(3), from.MinP()), RepeatPenalty: maybe(given(4), from.RepeatPenalty()), Choice: from.Choice(),
	}
	seeds, err := from.Seeds()
	if err == nil && seeds.Len() > 0 {
		s.Seed = seeds.At(0)
	}
	return s, err
}

func lookup(l schema.CacheLookup) inflight.CacheLookup {
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
	if err != nil || bases.Len() > maxEntries {
		return tooMany("bases", bases.Len(), err)
	}
	r := reading{}
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
	r := reading{}
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
		return tooMany("models", models.Len(), err)
	}
	r := reading{}
	for i := range models.Len() {
		c.Models = append(c.Models, r.model(models.At(i)))
		if r.err != nil {
			return r.err
		}
	}
	loaded, err := from.Loaded()
	if err != nil || loaded.Len() > maxModels {
		return tooMany("loaded models", loaded.Len(), err)
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
	r := reading{}
	d.reply = reply{}
	switch from.Which() {
	case schema.Reply_Which_metrics:
		text := r.data(from.Metrics())
		d.reply.metrics = append([]byte{}, text...) // outlives the frame
	case schema.Reply_Which_failure:
		failure, err := from.Failure()
		r.note(err)
		f := r.failure(failure)
		d.reply.unknown = f.Code == unimplemented
		d.reply.failure = f.Code + ": " + f.Text
	}
	return r.err
}

func decodeHello(f schema.Frame) (inflight.Hello, error) {
	if f.Which() != schema.Frame_Which_hello {
		return inflight.Hello{}, fmt.Errorf("%w: first frame is %d, not a hello", wire.ErrProtocol, f.Which())
	}
	from, err := f.Hello()
	if err != nil {
		return inflight.Hello{}, err
	}
	if _, err := wire.Agree(from); err != nil {
		return inflight.Hello{}, err
	}
	r := reading{}
	h := inflight.Hello{
		Instance: from.InstanceId(), Build: r.text(from.Build()), LibraryCommit: r.text(from.LibraryCommit()), Numerics: r.text(from.NumericsId()),
		Device: r.text(from.Device()), PID: int(from.ProcessId()),
	}
	limits, err := from.Limits()
	r.note(err)
	h.MaxPrompt = int(limits.MaxPromptBytes())
	devices, err := from.Devices()
	if err != nil || devices.Len() > maxEntries {
		return h, tooMany("devices", devices.Len(), err)
	}
	for i := range devices.Len() {
		d := devices.At(i)
		h.Devices = append(h.Devices, inflight.Device{Name: r.text(d.Name()), Backend: r.text(d.Backend()), MemoryTotal: d.MemoryTotal(), MemoryFree: d.MemoryFree()})
	}
	exit, err := from.LastExit()
	r.note(err)
	h.LastExit = inflight.LastExit{
		Kind: inflight.ExitKind(exit.Kind()), Signal: int(exit.Signal()), Code: int(exit.Code()), Uptime: duration(exit.UptimeNs()), Crashes: int(exit.Crashes()),
	}
	if h.LastExit.Loads, err = decodeLoads(exit, &r); err != nil {
		return h, err
	}
	return h, r.err
}

// decodeLoads gives the loads in which an engine died; one that can't list them names the oldest.
func decodeLoads(exit schema.LastExit, r *reading) ([]inflight.Load, error) {
	list, err := exit.Loads()
	if err != nil || list.Len() > maxEntries {
		return nil, tooMany("loads", list.Len(), err)
	}
	var loads []inflight.Load
	for i := range list.Len() {
		loads = append(loads, inflight.Load{Model: r.text(list.At(i).Model()), Version: r.text(list.At(i).Version())})
	}
	if model := r.text(exit.LoadingModel()); len(loads) == 0 && model != "" {
		loads = append(loads, inflight.Load{Model: model, Version: r.text(exit.LoadingVersion())})
	}
	return loads, nil
}

// reading keeps the first error of several getters.
type reading struct {
	err   error
	pairs int // versions so far
}

func (r *reading) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reading) text(v string, err error) string {
	r.note(err)
	return v // the accessor copies
}

// data points into the frame.
func (r *reading) data(v []byte, err error) []byte {
	r.note(err)
	return v
}

func (r *reading) failure(from schema.Failure) inflight.Failure {
	return inflight.Failure{Code: r.text(from.Code()), Text: r.text(from.Text()), Param: r.text(from.Param()), Retryable: from.Retryable()}
}

func (r *reading) facts(from schema.Facts, err error) inflight.Facts {
	r.note(err)
	return inflight.Facts{
		Architecture: r.text(from.Architecture()), Quantization: r.text(from.Quantization()), Backend: r.text(from.Backend()),
		ContextTokens: int(from.ContextTokens()), Cells: int(from.Cells()), Sequences: int(from.Sequences()),
		WeightBytes: from.WeightBytes(), CacheBytes: from.CacheBytes(), ChatTemplate: from.ChatTemplate(),
	}
}

func (r *reading) model(from schema.Model) inflight.Model {
	m := inflight.Model{
		Name: r.text(from.Name()), Description: r.text(from.Description()), Domain: r.text(from.Domain()),
		DefaultVersion: r.text(from.DefaultVersion()), ContextTokens: int(from.ContextTokens()),
	}
	versions, err := from.Versions()
	r.pairs += versions.Len()
	if err != nil || r.pairs > maxPairs {
		r.note(tooMany("versions", r.pairs, err))
		return m
	}
	for i := range versions.Len() {
		v := versions.At(i)
		m.Versions = append(m.Versions, inflight.Version{Name: r.text(v.Name()), Problem: r.text(v.Problem())})
	}
	return m
}

func (r *reading) ids(dst []int32, get func() (capnp.Int32List, error)) []int32 {
	list, err := get()
	if err != nil || list.Len() > maxIDs {
		r.note(tooMany("token ids", list.Len(), err))
		return dst
	}
	for i := range list.Len() {
		dst = append(dst, list.At(i))
	}
	return dst
}

func (r *reading) texts(get func() (capnp.TextList, error)) []string {
	list, err := get()
	if err != nil || list.Len() > maxEntries {
		r.note(tooMany("texts", list.Len(), err))
		return nil
	}
	texts := make([]string, list.Len())
	for i := range texts {
		texts[i] = r.text(list.At(i))
	}
	return texts
}

func (r *reading) heartbeats(dst []inflight.Heartbeat, get func() (schema.Beat_List, error)) []inflight.Heartbeat {
	list, err := get()
	if err != nil || list.Len() > maxEntries {
		r.note(tooMany("heartbeats", list.Len(), err))
		return dst
	}
	for i := range list.Len() {
		b := list.At(i)
		dst = append(dst, inflight.Heartbeat{
			Executor: r.text(b.Executor()), Phase: r.text(b.Phase()), Counter: b.Counter(), Age: duration(b.AgeNs()), Budget: duration(b.BudgetNs()),
		})
	}
	return dst
}

// tooMany is the error of a list that couldn't be read, or has too many elements.
func tooMany(what string, n int, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%d %s in one frame", n, what)
}

// duration of a field in nanoseconds; what no clock can measure is cut.
func duration(ns uint64) time.Duration { return time.Duration(min(ns, 1<<62)) }

func maybe[T any](given bool, v T) *T {
	if !given {
		return nil
	}
	return &v
}
