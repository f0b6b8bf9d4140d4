package batch

import "time"

// Token is an id of the model's vocabulary.
type Token = int32

// Runner is a loaded base as the executor needs it: one context on one device. Step, Truncate and CopyPrefix are called on the
// executor's goroutine only; the others from any goroutine.
type Runner interface {
	// Limits tells what the context can hold. It doesn't change after Attach.
	Limits() Limits
	// Step runs one decode over the slices, all with the same adapter, and draws one token for each slice that has a sampler without
	// a grammar. A result for one slice only goes into its Err; an error is about the whole step and leaves the cache unchanged.
	Step(adapter Adapter, slices []Slice) error
	// Truncate forgets the cells of a sequence from position from on. False means that the model can't forget a part: the
	// whole sequence is gone and must be prefilled again.
	Truncate(seq, from int) bool
	// CopyPrefix makes the first tokens cells of sequence from those of the empty sequence to as well. False: not possible here.
	CopyPrefix(from, to, tokens int) bool
	// NewSampler builds the chain for one answer and feeds it the prompt (for penalties) and the tokens already generated.
	NewSampler(s Sampling, prompt, generated []Token) (Sampler, error)
	// Piece is the text of a token, empty for a control token. The bytes belong to the runner and may be a part of a character.
	Piece(t Token) []byte
	// IsEnd tells whether the token ends the answer.
	IsEnd(t Token) bool
}

// DrawTimer is a Runner that tells how long the draws of its last Step took, for the metrics.
type DrawTimer interface{ DrawTime() time.Duration }

// Limits of a context.
type Limits struct {
	Cells       int  // tokens that the KV cache holds, all sequences together
	Sequences   int  // sequences at a time; ids are 0 … Sequences-1
	SequenceMax int  // tokens of one sequence at most
	StepTokens  int  // tokens of one Step at most
	Prefix      bool // CopyPrefix and partial Truncate are possible
}

// Adapter is a loaded LoRA version; nil means the base alone. Comparable.
type Adapter interface{ Name() string }

// Slice is one sequence's part of a step.
type Slice struct {
	Seq     int
	Start   int     // position of Tokens[0]
	Tokens  []Token // prompt chunk, or the one token drawn last and those that a grammar forced after it
	Sampler Sampler // nil: only fill the cache
	Index   int     // which token of the answer is drawn, from 0

	Draw Draw  // set by Step for a sampler without a grammar
	Err  error // set by Step when this sequence alone failed
}

// Draw is one sampled token.
type Draw struct {
	Token   Token
	Logprob float32 // natural logarithm, at temperature 1 over the whole vocabulary; NaN when Sampling doesn't ask for it
	Margin  float32 // gap to the runner-up in the value that was maximised; +Inf when there was one candidate
	Top     []TopLogprob
}

// TopLogprob is one of the most likely tokens at a place.
type TopLogprob struct {
	Token   Token
	Logprob float32
}

// Sampler is the state of one answer's draws. Step and Draw accept the token that they return.
type Sampler interface {
	// Constrained tells that a grammar decides which tokens may come. Step then only keeps the logits; the executor calls Draw itself,
	// and Advance on a worker before each Draw, while the device computes.
	Constrained() bool
	// Advance makes ready for the next draw: it gives the tokens that the grammar forces now, at most room of them, and moves past them.
	Advance(room int) ([]Token, error)
	// Draw takes the token at index from the logits kept by the last Step.
	Draw(index int) (Draw, error)
	// Accept moves the state past a token that is already known (replay).
	Accept(t Token) error
	Close()
}

// Sampling says how tokens are drawn. The draw is the arg max over the candidates of logit/Temperature + Gumbel(hash(Seed, Choice,
// index, token)), so it depends on nothing but these and the logits.
type Sampling struct {
	Temperature      float32 // 0: greedy
	TopK             int     // 0: off
	TopP             float32 // 1: off
	MinP             float32 // 0: off
	RepeatPenalty    float32 // 1: off
	PresencePenalty  float32 // 0: off
	FrequencyPenalty float32 // 0: off
	PenaltyWindow    int     // last tokens that the penalties look at, prompt included
	Seed             uint64
	Choice           uint32
	Logprobs         bool // compute Draw.Logprob, which takes another pass over the vocabulary
	TopLogprobs      int  // 0 … 20, how many Draw.Top entries; implies Logprobs
	LogitBias        map[Token]float32
	Grammar          string        // in the runner's own words; empty: none
	GrammarBudget    time.Duration // work on the grammar for one token, then ErrGrammarTooComplex
}

// Request is one answer to compute. The executor owns it from Submit until its Summary was emitted.
type Request struct {
	ID           uint64
	Attempt      uint32
	Base         string  // name given to Attach
	Adapter      Adapter // nil: base alone
	Prompt       []Token
	Generated    []Token // replay: tokens of the answer that were sent before
	ReplaySteps  bool    // replay Generated by decode steps rather than by prefill
	MaxNewTokens int     // replayed ones included
	Stops        []string
	Sampling     Sampling
	Owner        string        // fair-share key; the victim of a preemption is the newest sequence of the owner with most cells
	Timeout      time.Duration // remaining time from Submit; 0: none
	Sink         Sink
	Release      func() // called once on the executor's goroutine after the Summary was emitted; may be nil; must not block
}

// Sink receives what a step produced for its requests. Emit is called on the executor's goroutine, must not block and must not keep
// the step. False means that the receiver is gone: all its sequences are cancelled without a Summary (Release is still called).
type Sink interface {
	Emit(step *Step) bool
}

// Step is the part of one decode step that concerns one sink.
type Step struct {
	Base     string
	Duration time.Duration // of the whole decode step, draws included
	Tokens   []StepToken
	Done     []Summary // each together with its last token
}

// StepToken is one generated token.
type StepToken struct {
	ID        uint64
	Attempt   uint32
	Index     int // place in the answer, from 0; replayed tokens keep theirs and aren't sent again
	Token     Token
	Text      []byte // whole characters released by this token; may be empty, may hold text of earlier tokens
	TextEnd   int    // bytes of the answer released up to and including Text
	Logprob   float32
	Margin    float32
	SinceLast time.Duration // since this sequence's last token; for the first since its prefill began
	Top       []TopLogprob
}

// FinishReason says why an answer ended.
type FinishReason uint8

// How an answer can end.
const (
	FinishStop      FinishReason = iota + 1 // end token or stop string
	FinishLength                            // MaxNewTokens or the context is full
	FinishCancelled                         // Cancel was called
	FinishDeadline                          // Timeout passed
	FinishError                             // see Failure
)

// FailureCode is the closed set of reasons for FinishError.
type FailureCode string

// Failure codes; the proxy maps them to its error types.
const (
	FailDecode          FailureCode = "decode_failed"
	FailOutOfMemory     FailureCode = "out_of_memory" // no KV cells, even alone
	FailGrammarTooHard  FailureCode = "grammar_too_complex"
	FailContextExceeded FailureCode = "context_length_exceeded"
	FailInternal        FailureCode = "internal"
)

// Failure is why one answer failed; others go on.
type Failure struct {
	Code    FailureCode
	Message string
}

// Summary ends a request. Durations are measured by the engine; Restart holds replay prefill and is not part of Prefill.
type Summary struct {
	ID           uint64
	Attempt      uint32
	Reason       FinishReason
	Failure      Failure // for FinishError
	PromptTokens int
	CachedTokens int // prompt tokens that were reused from the KV cache
	OutputTokens int // replayed ones included
	Queue        time.Duration
	Prefill      time.Duration
	Decode       time.Duration
	Restart      time.Duration
}

// BaseStats is what the proxy's release decision and the gauges need. Taken between steps.
type BaseStats struct {
	Base          string
	FreeSequences int
	Sequences     int // free or not: what the proxy's credit is made of
	Prefilling    int
	Decoding      int
	Waiting       int // preempted, or submitted and not yet in a sequence
	FreeCells     int
	Cells         int
}

// Heartbeat is the executor's heartbeat: Counter moves at least once a second while idle, and with every step.
type Heartbeat struct {
	Phase   Phase
	Counter uint64
	Age     time.Duration // since Counter moved
	Budget  time.Duration // Age above this means hung
}

// Phase is what the executor does now.
type Phase uint8

// Phases of the executor.
const (
	PhaseIdle Phase = iota
	PhaseStep
	PhaseCall // a function given to Do
)
