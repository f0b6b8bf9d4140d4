package batch

import "time"

// Token is an id of the model's vocabulary.
type Token = int32

// Runner is a loaded base as the executor needs it: one context on one device. Step, Truncate and CopyPrefix are called
// on the executor's goroutine only; the others from any goroutine.
type Runner interface {
	// Limits is what the context can hold. It doesn't change after Attach.
	Limits() Limits
	// Step runs one decode over the slices, all with the same adapter unless Limits.MixedAdapters, and draws one token
	// for each slice that has a sampler without a grammar. A result for one slice only goes into its Err; an error is
	// about the whole step and leaves the cache unchanged.
	Step(slices []Slice) error
	// Truncate forgets the cells of a sequence from position from on. False means that the model can't forget a part:
	// the whole sequence is gone and must be prefilled again.
	Truncate(seq, from int) bool
	// CopyPrefix makes the first tokens cells of sequence from those of the empty sequence to as well. False: not
	// possible here.
	CopyPrefix(from, to, tokens int) bool
	// NewSampler builds the chain for one answer and feeds it the prompt (for penalties) and the tokens already
	// generated.
	NewSampler(s Sampling, prompt, generated []Token) (Sampler, error)
	// Piece is the text of a token, empty for a control token. The bytes belong to the runner and may be a part of a
	// character.
	Piece(t Token) []byte
	// TokenText is the token's own bytes as log-probabilities show it: as Piece, but a control token's name is written
	// out.
	TokenText(t Token) []byte
	// IsEnd reports whether the token ends the answer.
	IsEnd(t Token) bool
}

// DrawTimer is a Runner that measures how long the draws of its last Step took, for the metrics.
type DrawTimer interface{ DrawTime() time.Duration }

// FirstTimer is a Runner whose device may compile what it computes for the first time.
type FirstTimer interface {
	// FirstOfKind reports whether the device has computed no step like this one yet, so that it may take minutes.
	FirstOfKind(slices []Slice) bool
}

// StepMeasurer is a Runner that timed some steps before it was attached, so that the first steps of requests are
// planned by what steps take and not by guesses.
type StepMeasurer interface{ MeasuredSteps() []MeasuredStep }

// MeasuredStep is how long a step took, of one kind of tokens.
type MeasuredStep struct {
	Decodes int // sequences that advanced by one token, each its first
	Prompts int // tokens of one prompt, from its beginning
	Took    time.Duration
}

// DeviceSampler is a Runner whose device may find the candidates of draws, so that rows of logits needn't come to the
// host.
type DeviceSampler interface{ DeviceDraws() DeviceDraws }

// DeviceDraws is what of a Step was drawn from candidates that the device found.
type DeviceDraws struct {
	Draws    int
	Repeated bool // they weren't enough for a draw, so the step was computed a second time, for rows
}

// Limits of a context.
type Limits struct {
	Cells       int  // tokens that the KV cache holds, all sequences together
	StreamCells int  // of them, those of each sequence alone (streams); 0: each may use what the others leave
	Sequences   int  // sequences at a time; ids are 0 … Sequences-1
	SequenceMax int  // tokens of one sequence at most
	StepTokens  int  // tokens of one Step at most
	Prefix      bool // CopyPrefix and partial Truncate are possible
	CopyTokens  int  // computing fewer than this takes less time than a CopyPrefix; 0: that takes none
	Vocabulary  int  // tokens are 0 … Vocabulary-1; 0: not known

	MixedAdapters bool // slices of one Step may have different adapters
}

// Adapter is a loaded LoRA version; nil means the base alone. Comparable.
type Adapter interface{ Name() string }

// Slice is one sequence's part of a step.
type Slice struct {
	Seq     int
	Adapter Adapter
	Start   int     // position of Tokens[0]
	Tokens  []Token // prompt chunk, or the one token drawn last and those that a grammar forced after it
	Sampler Sampler // nil: only fill the cache
	Index   int     // which token of the answer is drawn, from 0
	Score   Score   // which log-probabilities of the prompt are wanted

	Draw   Draw         // set by Step for a sampler without a grammar
	Scores []TokenScore // set by Step, one for each of Score.Targets
	Err    error        // set by Step when this sequence alone failed
}

// Score asks a Step for the log-probabilities of tokens that are known: Targets[i] is what follows Tokens[After+i].
type Score struct {
	Targets []Token
	After   int
	Top     int // entries of TokenScore.Top
}

// TokenScore is the log-probability of a known token, at temperature 1 over the whole vocabulary.
type TokenScore struct {
	Logprob float32
	Top     []TopLogprob
}

// Draw is one sampled token.
type Draw struct {
	Token Token
	// Logprob: natural logarithm, at temperature 1 over the whole vocabulary; NaN when Sampling doesn't ask for it
	Logprob float32
	Margin  float32 // gap to the runner-up in the value that was maximised; +Inf when there was one candidate
	Top     []TopLogprob
}

// TopLogprob is one of the most likely tokens at a place.
type TopLogprob struct {
	Token   Token
	Logprob float32
	Text    []byte // TokenText, set by the executor
}

// Sampler is the state of one answer's draws. Step and Draw accept the token that they return.
type Sampler interface {
	// Constrained reports whether a grammar decides which tokens are allowed. Step then only keeps the logits; the
	// executor calls Draw itself, and Advance on a worker before each Draw, while the device computes.
	Constrained() bool
	// Advance prepares the next draw: it returns the tokens that the grammar forces now, at most room of them, and
	// moves past them.
	Advance(room int) ([]Token, error)
	// Draw draws the token at index from the logits kept by the last Step.
	Draw(index int) (Draw, error)
	// Accept moves the state past a token that is already known (replay).
	Accept(t Token) error
	Close()
}

// wantsLogprobs reports whether drawn tokens have log-probabilities.
func (s *Sampling) wantsLogprobs() bool { return s.Logprobs || s.TopLogprobs > 0 }

// Sampling is how tokens are drawn. The draw is the arg max over the candidates of logit/Temperature +
// Gumbel(hash(Seed, Choice, index, token)), so it depends on nothing but these and the logits.
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
	IgnoreEnd        bool          // no end token is drawn, unless a grammar allows nothing else
	Grammar          string        // in the runner's own syntax; empty: none
	Triggers         []Trigger     // the grammar begins at the first of these; none: with the answer
	GrammarBudget    time.Duration // work on the grammar for one token, then ErrGrammarTooComplex
}

// Trigger is a place in an answer at which its grammar begins.
type Trigger struct {
	Kind  TriggerKind
	Value string // the text, or the regular expression
	Token Token  // for TriggerToken
}

// TriggerKind says how a Trigger is found.
type TriggerKind uint8

// Kinds of triggers.
const (
	TriggerToken       TriggerKind = iota + 1 // this token
	TriggerWord                               // this text
	TriggerPattern                            // a text that matches; its first group is where the grammar begins
	TriggerPatternFull                        // the same, and the whole answer so far must match

	// Not triggers: between these texts there are none.
	TriggerReasoningStart // an answer that begins with this text has reasoning first; without one any answer has
	TriggerReasoningEnd   // one of the texts that end the reasoning, and may be a trigger itself
)
