package link

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

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
	maxTriggers  = 64
)

// attemptKey names one attempt at a request.
type attemptKey struct {
	id      uint64
	attempt uint32
}

// inferRequest is an InferRequest copied out of its frame.
type inferRequest struct {
	model, version string
	input          models.Input
	maxNewTokens   int // 0: not given
	fitContext     bool
	plainSampling  bool
	sampling       samplingParams
	stops          []string
	timeout        time.Duration // 0: none
	owner          uint64
	ownerWeight    float64 // 0: 1
	requestKey     string
	traceparent    string
	rendered       *models.Prompt // replay; nil: render the input
	generated      []int32
	replaySteps    bool
	expectRevision []byte
	countCache     bool
	invalid        error // about a field that can't be used; ends the request, not the connection
	promptLogprobs bool
	embed          embedInput
}

// isReplay reports whether the request was accepted before, by this or another engine.
func (in *inferRequest) isReplay() bool { return in.rendered != nil }

// inFlightRequest is one attempt in progress, from its frame to its summary.
type inFlightRequest struct {
	attemptKey
	in        inferRequest
	arrived   time.Time
	ctx       context.Context // of the preparation: ends with a cancel, the deadline, a move and the connection
	cancel    context.CancelCauseFunc
	stopTimer context.CancelFunc

	// Written before Submit or before the summary is sent, read afterwards.
	lease       *models.Lease
	renderTime  time.Duration  // template and tokenising
	stream      *partStream    // of splitOutput without a parser
	parsing     *answerParsing // of splitOutput with a parser
	submittedAt time.Time      // to the executor; zero: never

	// For recordAttempt: written before the summary is sent, guarded by session.mu from Submit on.
	summary   batch.Summary
	reason    string // how it ended; empty: without a summary
	errorType string // type of the error

	// Guarded by session.mu.
	submitted  bool
	cancelled  bool
	handedBack bool
}

// Why a preparation was ended early.
var (
	errCancelled = errors.New("request was cancelled")
	errDeadline  = errors.New("deadline passed")
	errMoved     = errors.New("request is handed back")
	errLost      = errors.New("connection to the proxy is lost")
)

// decodeInfer copies a request out of its frame; errors are the peer's fault.
func decodeInfer(f schema.Frame) (attemptKey, inferRequest, error) {
	k := attemptKey{f.Id(), f.Attempt()}
	r, err := f.Infer()
	if err != nil {
		return k, inferRequest{}, err
	}
	in, err := decodeRequest(r)
	return k, in, err
}

// weightOf is the weight of a request's owner; what is none is 0.
func weightOf(r schema.InferRequest) float64 {
	if w := float64(r.OwnerWeight()); w > 0 && w <= math.MaxFloat32 {
		return w
	}
	return 0
}

func decodeRequest(r schema.InferRequest) (inferRequest, error) {
	var in inferRequest
	d := fieldReader{}
	in.model, in.version = d.text(r.Model()), d.text(r.Version())
	in.input = models.Input{
		Prompt: d.string(r.Prompt()), System: d.string(r.System()), HasSystem: r.HasSystem(), Raw: r.Raw(),
		JSONSchema: d.data(r.JsonSchema()), Grammar: d.text(r.Grammar()),
	}
	in.maxNewTokens, in.fitContext, in.plainSampling = int(r.MaxNewTokens()), r.FitContext(), r.PlainSampling()
	in.timeout = time.Duration(min(r.TimeoutNs(), 1<<62))
	in.owner, in.ownerWeight, in.requestKey = r.Owner(), weightOf(r), d.text(r.RequestKey())
	in.traceparent = d.text(r.Traceparent())
	in.generated = d.int32s(r.Generated())
	in.replaySteps = r.Replay() == schema.ReplayMode_decode
	in.expectRevision = d.data(r.ExpectRevision())
	in.countCache = r.CountCache()
	in.stops = d.texts(r.Stops())
	in.input.Messages, in.invalid = d.messages(r.Messages())
	in.input.Tokens = d.int32s(r.PromptTokens())
	in.promptLogprobs = r.PromptLogprobs()
	if err := decodeTools(r, &d, &in.input); err != nil {
		in.invalid = err
	}
	if d.err != nil {
		return in, d.err
	}
	var err error
	if in.rendered, err = decodeRendered(r); err != nil {
		return in, err
	}
	if in.embed, err = decodeEmbed(r); err != nil {
		return in, err
	}
	if in.rendered != nil {
		in.countCache = false
	}
	in.sampling, err = decodeSampling(r)
	in.sampling.ignoreEnd = r.IgnoreEnd()
	return in, err
}

func decodeRendered(r schema.InferRequest) (*models.Prompt, error) {
	if !r.HasRendered() {
		return nil, nil
	}
	from, err := r.Rendered()
	if err != nil {
		return nil, err
	}
	d := fieldReader{}
	p := &models.Prompt{Tokens: d.int32s(from.PromptTokens()), Grammar: d.text(from.Grammar()), Stops: d.texts(from.Stops())}
	p.Parser = d.data(from.ParserState())
	triggers, err := from.Triggers()
	if err != nil {
		return nil, err
	}
	if triggers.Len() > maxTriggers {
		return nil, tooMany("triggers", triggers.Len())
	}
	for i := range triggers.Len() {
		t := triggers.At(i)
		p.Triggers = append(p.Triggers, models.Trigger{Kind: models.TriggerKind(t.Kind()), Value: d.text(t.Value()), Token: t.Token()})
	}
	return p, d.err
}

// decodeTools reads what a request says about tools and the form of its answer. The error is the client's mistake.
func decodeTools(r schema.InferRequest, d *fieldReader, in *models.Input) error {
	in.ParallelToolCalls, in.SplitOutput = r.ParallelToolCalls(), r.SplitOutput()
	options := d.data(r.TemplateOptions())
	tools, choice := d.data(r.Tools()), d.data(r.ToolChoice())
	if d.err != nil {
		return nil
	}
	var err error
	if in.Tools, err = models.DecodeTools(tools); err != nil {
		return &invalidFieldError{"tools", err.Error()}
	}
	if in.ToolChoice, err = models.DecodeToolChoice(choice, in.Tools); err != nil {
		return &invalidFieldError{"tool_choice", err.Error()}
	}
	if in.TemplateOptions, in.Continue, err = models.DecodeTemplateOptions(options); err != nil {
		return &invalidFieldError{"chat_template_kwargs", err.Error()}
	}
	return nil
}

func decodeSampling(r schema.InferRequest) (samplingParams, error) {
	var out samplingParams
	from, err := r.Sampling()
	if err != nil {
		return out, err
	}
	given := func(ordinal int) bool { return from.Present()>>ordinal&1 == 1 }
	out.temperature = pointerIf(given(0), from.Temperature())
	out.topK = pointerIf(given(1), int(from.TopK()))
	out.topP = pointerIf(given(2), from.TopP())
	out.minP = pointerIf(given(3), from.MinP())
	out.repeatPenalty = pointerIf(given(4), from.RepeatPenalty())
	out.presencePenalty = pointerIf(given(5), from.PresencePenalty())
	out.frequencyPenalty = pointerIf(given(6), from.FrequencyPenalty())
	out.penaltyWindow = pointerIf(given(7), int(from.PenaltyWindow()))
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
		if out.logitBias == nil {
			out.logitBias = make(map[batch.Token]float32, bias.Len())
		}
		out.logitBias[bias.At(i).Token()] = bias.At(i).Bias()
	}
	return out, nil
}

func tooMany(what string, n int) error { return fmt.Errorf("%w: %d %s", wire.ErrProtocol, n, what) }

func pointerIf[T any](given bool, v T) *T {
	if !given {
		return nil
	}
	return &v
}
