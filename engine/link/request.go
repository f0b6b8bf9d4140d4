package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

// Limits of what one request may hold; the proxy's are far lower.
const (
	maxMessages  = 4096
	maxStops     = 64
	maxSeeds     = 1024
	maxBias      = 4096
	maxTopTokens = 20
)

// key names one attempt at a request.
type key struct {
	id      uint64
	attempt uint32
}

// inference is an InferRequest copied out of its frame.
type inference struct {
	model, version string
	input          models.Input
	maxNewTokens   int // 0: not given
	sampling       sampling
	stops          []string
	timeout        time.Duration // 0: none
	owner          uint64
	requestKey     string
	traceparent    string
	rendered       *models.Prompt // replay; nil: render the input
	generated      []int32
	replaySteps    bool
	expectRevision []byte
	countCache     bool
	unsupported    string // the field that this engine can't obey
}

// replay tells that the request was accepted before.
func (in *inference) replay() bool { return in.rendered != nil }

// request is one attempt in hand, from its frame to its summary.
type request struct {
	key
	in      inference
	arrived time.Time
	ctx     context.Context // of the preparation: ends with a cancel, the deadline, a move and the connection
	stop    context.CancelCauseFunc
	expire  context.CancelFunc

	// Written before Submit or before the summary is sent, read afterwards.
	lease      *models.Lease
	prepared   time.Duration // template and tokenising
	handedOver time.Time     // to the executor; zero: never

	// For the record: written before the summary is sent, guarded by session.mu from Submit on.
	summary batch.Summary
	reason  string // how it ended; empty: without a summary
	failed  string // type of the error

	// Guarded by session.mu.
	submitted bool
	cancelled bool
	moved     bool
}

// Why a preparation ended early.
var (
	errCancelled = errors.New("request was cancelled")
	errDeadline  = errors.New("deadline passed")
	errMoved     = errors.New("request is handed back")
	errLost      = errors.New("connection to the proxy is lost")
)

// decode copies a request out of its frame; errors are the peer's fault.
func decode(f schema.Frame) (key, inference, error) {
	k := key{f.Id(), f.Attempt()}
	var in inference
	r, err := f.Infer()
	if err != nil {
		return k, in, err
	}
	d := reading{}
	in.model, in.version = d.text(r.Model()), d.text(r.Version())
	in.input = models.Input{
		Prompt: d.string(r.Prompt()), System: d.string(r.System()), HasSystem: r.HasSystem(), Raw: r.Raw(),
		JSONSchema: d.data(r.JsonSchema()), Grammar: d.text(r.Grammar()),
	}
	in.maxNewTokens = int(r.MaxNewTokens())
	in.timeout = time.Duration(min(r.TimeoutNs(), 1<<62))
	in.owner, in.requestKey = r.Owner(), d.text(r.RequestKey())
	in.traceparent = d.text(r.Traceparent())
	in.generated = d.ids(r.Generated())
	in.replaySteps = r.Replay() == schema.ReplayMode_decode
	in.expectRevision = d.data(r.ExpectRevision())
	in.countCache = r.CountCache()
	in.stops = d.texts(r.Stops())
	in.input.Messages = d.messages(r.Messages())
	if r.HasTools() || r.HasToolChoice() {
		in.unsupported = "tools"
	}
	if d.err != nil {
		return k, in, d.err
	}
	if in.rendered, err = decodeRendered(r); err != nil {
		return k, in, err
	}
	if in.rendered != nil {
		in.countCache = false
	}
	in.sampling, err = decodeSampling(r)
	return k, in, err
}

func decodeRendered(r schema.InferRequest) (*models.Prompt, error) {
	if !r.HasRendered() {
		return nil, nil
	}
	from, err := r.Rendered()
	if err != nil {
		return nil, err
	}
	d := reading{}
	p := &models.Prompt{Tokens: d.ids(from.PromptTokens()), Grammar: d.text(from.Grammar()), Stops: d.texts(from.Stops())}
	return p, d.err
}

func decodeSampling(r schema.InferRequest) (sampling, error) {
	var out sampling
	from, err := r.Sampling()
	if err != nil {
		return out, err
	}
	given := func(ordinal int) bool { return from.Present()>>ordinal&1 == 1 }
	out.temperature = maybe(given(0), from.Temperature())
	out.topK = maybe(given(1), int(from.TopK()))
	out.topP = maybe(given(2), from.TopP())
	out.minP = maybe(given(3), from.MinP())
	out.repeatPenalty = maybe(given(4), from.RepeatPenalty())
	out.presencePenalty = maybe(given(5), from.PresencePenalty())
	out.frequencyPenalty = maybe(given(6), from.FrequencyPenalty())
	out.penaltyWindow = maybe(given(7), int(from.PenaltyWindow()))
	out.choice, out.logprobs, out.topLogprobs = from.Choice(), from.WantLogprobs(), int(from.TopLogprobs())
	seeds, err := from.Seeds()
	if err != nil {
		return out, err
	}
	if seeds.Len() > maxSeeds {
		return out, tooMany("seeds", seeds.Len())
	}
	if n := seeds.Len(); n > 0 {
		i := 0 // one seed may serve all choices
		if int64(out.choice) < int64(n) {
			i = int(out.choice)
		}
		out.seed = seeds.At(i)
	}
	bias, err := from.LogitBias()
	if err != nil {
		return out, err
	}
	if bias.Len() > maxBias {
		return out, tooMany("logit biases", bias.Len())
	}
	for i := range bias.Len() {
		if out.bias == nil {
			out.bias = make(map[batch.Token]float32, bias.Len())
		}
		out.bias[bias.At(i).Token()] = bias.At(i).Bias()
	}
	return out, nil
}

func tooMany(what string, n int) error { return fmt.Errorf("%w: %d %s", wire.ErrProtocol, n, what) }

func maybe[T any](given bool, v T) *T {
	if !given {
		return nil
	}
	return &v
}

// reading keeps the first error of several getters and copies what they give.
type reading struct{ err error }

func (d *reading) note(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *reading) text(v string, err error) string {
	d.note(err)
	return v // the accessor copies
}

func (d *reading) string(v []byte, err error) string {
	d.note(err)
	return string(v)
}

func (d *reading) data(v []byte, err error) []byte {
	d.note(err)
	if len(v) == 0 {
		return nil
	}
	return bytes.Clone(v)
}

func (d *reading) ids(v capnp.Int32List, err error) []int32 {
	d.note(err)
	if err != nil || v.Len() == 0 {
		return nil
	}
	out := make([]int32, v.Len())
	for i := range out {
		out[i] = v.At(i)
	}
	return out
}

func (d *reading) texts(v capnp.TextList, err error) []string {
	d.note(err)
	if err != nil || v.Len() == 0 {
		return nil
	}
	if v.Len() > maxStops {
		d.note(tooMany("stops", v.Len()))
		return nil
	}
	out := make([]string, v.Len())
	for i := range out {
		out[i] = d.text(v.At(i))
	}
	return out
}

func (d *reading) messages(v schema.Message_List, err error) []models.Message {
	d.note(err)
	if err != nil || v.Len() == 0 {
		return nil
	}
	if v.Len() > maxMessages {
		d.note(tooMany("messages", v.Len()))
		return nil
	}
	out := make([]models.Message, v.Len())
	for i := range out {
		m := v.At(i)
		out[i] = models.Message{Role: d.text(m.Role()), Content: d.string(m.Content())}
	}
	return out
}
