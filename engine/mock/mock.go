// Package mock is an engine without a model: it answers every prompt with the prompt itself, one token a step, and then
// ends. It takes the place of llama.cpp where only what is around the model matters: tests of the two processes, of
// restarts and of monitoring, and `make mock`.
//
// Everything else that a backend does is real: tokens of a small fixed vocabulary, KV cells that are filled, copied and
// truncated, loads that take time, report progress and fail, adapters. But no number here says anything about a model:
// temperature, seed, penalties, logit bias, JSON schemas and grammars are accepted and ignored, log-probabilities are
// the same few numbers everywhere, adapters don't change the answer, and the system text and all messages but the last
// one of the user or of a tool are dropped. Tool calls and reasoning come on request (tool_calls.go). Embeddings are
// made of the tokens' ids, and scores of what query and document share.
package mock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tandem/engine/models"
)

// Model is the name of the model that the mock takes the place of, so that the documented request works with it.
const Model = "demo"

// Versions of Model, besides the base itself.
func Versions() []string { return []string{"v1.0", "v1.1", "v2.0"} }

// Limits of a base where its spec leaves them open.
const (
	defaultContext   = 8192
	defaultSequences = 32
	stepTokens       = 2048
	maxCells         = 1 << 20
	loadSteps        = 10 // progress reports of a load
)

// Options set how slow the mock is and which loads fail; the zero value is fast and never fails.
type Options struct {
	TokenDelay   time.Duration // of a step that draws
	PrefillDelay time.Duration // of a step, for each prompt token
	LoadDelay    time.Duration // of a base or an adapter

	// FailLoad makes loads fail: a key is a base's name, or NAME@VERSION for one adapter.
	FailLoad map[string]models.Reason
}

// Backend loads bases that echo.
type Backend struct {
	opts Options
}

var _ models.Backend = (*Backend)(nil)

// New returns a backend.
func New(o Options) *Backend {
	return &Backend{opts: o}
}

// LoadBase returns a base after LoadDelay. The file in spec isn't read.
func (b *Backend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	if progress == nil {
		progress = func(models.Progress) {}
	}
	if err := b.simulateLoad(ctx, spec.Name, "weights", progress); err != nil {
		return nil, err
	}
	return newBase(b, spec), nil
}

// simulateLoad takes the time of a load, or fails as Options.FailLoad says.
func (b *Backend) simulateLoad(ctx context.Context, what, phase string, progress func(models.Progress)) error {
	for i := range loadSteps {
		progress(models.Progress{Phase: phase, Ratio: float64(i) / loadSteps})
		if err := sleep(ctx, b.opts.LoadDelay/loadSteps); err != nil {
			return &models.LoadError{Reason: reasonOf(err), What: what, Err: err}
		}
	}
	if r, ok := b.opts.FailLoad[what]; ok {
		return &models.LoadError{Reason: r, What: what, Err: errors.New("the mock was told to fail")}
	}
	progress(models.Progress{Phase: phase, Ratio: 1})
	return nil
}

func reasonOf(err error) models.Reason {
	if errors.Is(err, context.DeadlineExceeded) {
		return models.ReasonTimeout
	}
	return models.ReasonOther
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Base is a loaded mock model: a models.Base and the batch.Runner of it.
type Base struct {
	backend *Backend
	spec    models.BaseSpec
	facts   models.Facts
	cache   kvCache
}

var _ models.Base = (*Base)(nil)

func newBase(b *Backend, spec models.BaseSpec) *Base {
	context, sequences := spec.Context, spec.Parallel
	if context <= 0 {
		context = defaultContext
	}
	if sequences <= 0 {
		sequences = defaultSequences
	}
	n := min(context*sequences, max(maxCells, context))
	return &Base{backend: b, spec: spec, cache: newKVCache(sequences), facts: models.Facts{
		Architecture: "mock", Quantization: "none", ContextTokens: context, TrainContext: context,
		Cells: n, Sequences: sequences, WeightBytes: vocabularyBytes(), CacheBytes: int64(n) * 4,
		KV:     models.KVCache{Bytes: int64(n) * 4, KeyType: cmp.Or(spec.Attention.KeyType, models.CacheF16), ValueType: cmp.Or(spec.Attention.ValueType, models.CacheF16)},
		Memory: []models.DeviceMemory{{Device: "mock", WeightBytes: vocabularyBytes(), CacheBytes: int64(n) * 4}}, CellsLimit: "CONTEXT and PARALLEL",
		Sampling: models.Sampling{Place: models.SamplingHost, DecidedBy: "there is no device"},
		Device:   "mock", Backend: "mock", EmbeddingSize: embeddingSize,
		Abilities: models.Abilities{Tools: true, Reasoning: true, Embeddings: true, Scores: true},
	}}
}

// Facts of the base. Its weights are the vocabulary.
func (b *Base) Facts() models.Facts { return b.facts }

// AdapterFits is true: there is no accelerator.
func (b *Base) AdapterFits(int64, int64, bool) bool { return true }

// LoadAdapter returns a version that answers as the base does.
func (b *Base) LoadAdapter(ctx context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	what := b.spec.Name + "@" + spec.Name
	if err := b.backend.simulateLoad(ctx, what, "adapter", func(models.Progress) {}); err != nil {
		return nil, err
	}
	return &Adapter{name: spec.Name}, nil
}

// Render tokenises the prompt, or the last message of the user, or with SplitOutput what script makes of it.
func (b *Base) Render(ctx context.Context, in models.Input) (models.Prompt, error) {
	if err := context.Cause(ctx); err != nil {
		return models.Prompt{}, fmt.Errorf("render for %s: %w", b.spec.Name, err)
	}
	text, fromTool := lastMessage(in)
	state := ""
	if in.SplitOutput {
		text = script(in, text, fromTool)
		state = stateOf(text)
	}
	most := b.facts.ContextTokens
	if in.MaxTokens > 0 {
		most = min(most, in.MaxTokens)
	}
	tokens := in.Tokens
	if len(tokens) == 0 {
		tokens = tokenise(text)
	}
	if len(tokens) > most {
		return models.Prompt{}, fmt.Errorf("render for %s: %d tokens: %w", b.spec.Name, len(tokens), models.ErrPromptTooLong)
	}
	return models.Prompt{Tokens: tokens, Parser: []byte(state)}, nil
}

// lastMessage is what the mock answers: the last message of the user or of a tool.
func lastMessage(in models.Input) (text string, fromTool bool) {
	for _, m := range slices.Backward(in.Messages) {
		if m.Role == "user" || m.Role == "tool" {
			return m.Content, m.Role == "tool"
		}
	}
	return in.Prompt, false
}

// WriteOut is the text of tokens.
func (b *Base) WriteOut(tokens []int32) []byte { return detokenise(tokens) }

// Close makes every later Step fail.
func (b *Base) Close() error {
	b.cache.close()
	return nil
}
