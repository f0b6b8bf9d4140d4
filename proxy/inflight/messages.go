package inflight

import (
	"context"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
)

// Engine is the connection to one attached engine process as the request table uses it. Except for Metrics and Load,
// its methods append to a bounded outgoing queue and never block; they do nothing once the connection is lost.
type Engine interface {
	// Infer sends a request. It returns false, and sends nothing, when the request doesn't fit into a frame.
	Infer(s *Submission) bool
	// Backlog is how many bytes of requests and calls wait to be written to the connection.
	Backlog() int
	Cancel(id uint64, attempt uint32)
	// Drained tells a draining engine that it has no requests left.
	Drained()
	// Move asks the engine to give all its requests back, because another engine takes them.
	Move()
	// Hangup closes the connection because the engine violated the protocol; Table.Lost follows.
	Hangup(reason string)
	// Metrics fetches the engine's own metrics in Prometheus text form.
	Metrics(ctx context.Context) ([]byte, error)
	// Load asks for a model to be loaded now and waits for the answer.
	Load(ctx context.Context, model, version string) error
	// Tokenize, Detokenize and Render use a model's vocabulary and template and compute nothing. Their errors are those
	// of the request, as *EngineFailure, or of the connection.
	Tokenize(ctx context.Context, model, version, text string, addSpecial bool) ([]int32, error)
	Detokenize(ctx context.Context, model, version string, tokens []int32) ([]byte, error)
	Render(ctx context.Context, s *Submission) (RenderedText, error)
}

// RenderedText is a prompt as a model would read it; control tokens are written out.
type RenderedText struct {
	Text   []byte
	Tokens []int32
}

// EngineFailure is an engine's refusal of a call.
type EngineFailure Failure

func (f *EngineFailure) Error() string { return f.Code + ": " + f.Text }

// EngineHandler is what package link reports to; Table implements it. Every call names its engine, and the calls for an
// engine come in the order of its frames. Nothing passed in may be kept after the call, byte slices and tokens
// included.
type EngineHandler interface {
	// Attached is the first call for an engine, after both sides have sent their hello.
	Attached(e Engine, h Hello)
	// Lost is the last call for an engine. The connection's reader makes it, after it has delivered every frame.
	Lost(e Engine, l Loss)
	Accepted(e Engine, id uint64, attempt uint32, a *Accepted)
	Step(e Engine, s *Step)
	Event(e Engine, ev ModelEvent)
	Catalog(e Engine, c *Catalog)
	Stats(e Engine, s *Stats)
	Heartbeats(e Engine, list []Heartbeat) // with a pong
	Draining(e Engine, grace time.Duration, replacement bool)
	Moved(e Engine)
}

// Hello is an engine's description of itself.
type Hello struct {
	Instance      uint64 // new with every process start
	Build         string
	LibraryCommit string
	Numerics      string // equal ids give equal tokens
	Device        string // cuda, cpu, mock …
	Devices       []Device
	Backends      []Backend
	LastExit      LastExit
	MaxPrompt     int // bytes
	PID           int
}

// Device of an engine; memory in bytes.
type Device struct {
	Name, Backend, Description string
	MemoryTotal, MemoryFree    uint64
}

// Backend is a compute backend that is installed at an engine. Problem says why it gives no device.
type Backend struct {
	Name, Problem string
	Devices       []Device
}

// LastExit tells how the engine before this one ended.
type LastExit struct {
	Kind         ExitKind
	Signal, Code int
	Uptime       time.Duration
	Crashes      int
	Loads        []Load // it died inside of these, oldest first
}

// Load of a model that was in progress.
type Load struct{ Model, Version string }

// ExitKind of a LastExit.
type ExitKind uint8

// Exit kinds, in the schema's order.
const (
	ExitNone ExitKind = iota
	ExitCode
	ExitSignal
	ExitOOM
	ExitStall
	ExitUpgrade
)

// Loss is why a connection ended.
type Loss struct {
	Reason string // eof, error, protocol, stall, goaway
	Err    error
}

// Submission is one request as it goes to an engine. Immutable once handed to Engine.Infer.
type Submission struct {
	ID             uint64
	Attempt        uint32
	Model          string
	Version        string
	Prompt         string
	System         string
	HasSystem      bool          // a system text is given, even if it is empty
	Messages       []api.Message // a conversation in place of Prompt and System
	JSONSchema     []byte
	Stops          []string
	MaxNewTokens   int  // 0: not given
	PlainSampling  bool // temperature 1 and nothing else are the defaults after the model's
	FitContext     bool // cut MaxNewTokens to the context; without it, use what the prompt leaves
	Sampling       Sampling
	Timeout        time.Duration // the time left; 0: no limit
	Traceparent    string
	RequestID      string // X-Request-Id
	Owner          uint64 // fair-share key
	OwnerWeight    float64
	Raw            bool
	Task           api.Task
	PromptTokens   []int32 // in place of Prompt
	Grammar        string  // GBNF
	Tools          []api.Tool
	ToolChoice     api.ToolChoice
	ParallelCalls  bool   // several tool calls in one answer are allowed
	TemplateValues []byte // JSON object
	SplitOutput    bool
	PromptLogprobs bool
	IgnoreEnd      bool
	Rendered       *Rendered // replay: what Accepted returned
	Generated      []int32   // replay
	ReplaySteps    bool      // replay by decode steps
	ExpectRevision []byte    // replay
}

// Sampling parameters. A nil is one that wasn't given: the model's default applies.
type Sampling struct {
	Temperature   *float32
	TopK          *int32
	TopP          *float32
	MinP          *float32
	RepeatPenalty *float32
	// PresencePenalty and FrequencyPenalty as in OpenAI's API.
	PresencePenalty  *float32
	FrequencyPenalty *float32
	Seed             uint64 // always set, the proxy picks one
	Choice           uint32
	Logprobs         bool
	TopLogprobs      int
	LogitBias        []api.TokenBias
}

// Rendered is the form in which a request is replayed.
type Rendered = journal.Rendered

// Trigger is a text in an answer at which its grammar begins.
type Trigger = journal.Trigger

// Accepted is an engine's answer to a Submission, before the first token.
type Accepted struct {
	Model, Version string // resolved
	Revision       []byte
	Rendered       Rendered
	MaxNewTokens   int // after cutting to the context
	Lookup         CacheLookup
	Sampling       Sampling // every field filled in
}

// CacheLookup of a request in the engine's model cache.
type CacheLookup uint8

// Cache look-ups; a replay is uncounted.
const (
	LookupUncounted CacheLookup = iota
	LookupHit
	LookupMiss
)

// Step carries what one decode step produced.
type Step struct {
	Duration time.Duration
	Prompts  []PromptPart // before the first tokens of their requests
	Tokens   []Token
	Done     []Summary
}

// PromptPart is a part of a prompt with its log-probabilities.
type PromptPart struct {
	ID      uint64
	Attempt uint32
	From    int // place of the first token
	Tokens  []api.TokenLogprob
}

// Token is one generated token.
type Token struct {
	ID        uint64
	Attempt   uint32
	Choice    uint32
	Index     int
	Token     int32
	Text      []byte
	TextEnd   int
	Logprob   float32
	Piece     []byte // the token's own bytes; only where log-probabilities are asked for
	Top       []api.TopLogprob
	Margin    float32
	SinceLast time.Duration
}

// Finish says why an answer ended.
type Finish uint8

// Finish reasons, in the schema's order.
const (
	FinishUnspecified Finish = iota
	FinishStop
	FinishLength
	FinishCancelled
	FinishDeadline
	FinishError
	FinishMoved
)

// Summary ends a request at an engine.
type Summary struct {
	ID           uint64
	Attempt      uint32
	Reason       Finish
	Failure      Failure
	PromptTokens int
	CachedTokens int
	OutputTokens int
	Queue        time.Duration
	Prefill      time.Duration
	Decode       time.Duration
	Restart      time.Duration
	Render       time.Duration
	Reasoning    int       // of OutputTokens
	Stop         string    // the stop string that ended the answer
	Embedding    []float32 // of tasks that don't generate
}

// Failure as an engine reports it; Code is an error type of api's table.
type Failure struct {
	Code, Text, Param string
	Retryable         bool
	PromptTokens      int // of a prompt that doesn't fit the context; 0: not counted
}

// EventKind of a ModelEvent, in the schema's order.
type EventKind uint8

// Event kinds.
const (
	EventUnspecified EventKind = iota
	EventLoading
	EventProgress
	EventLoaded
	EventLoadFailed
	EventEvicted
)

// ModelEvent is a change in the loading of a model at an engine.
type ModelEvent struct {
	Kind           EventKind
	Model, Version string
	Phase          string
	Ratio          float64
	Took           time.Duration
	Bytes          uint64
	Reason, Text   string
	Revision       []byte
	Facts          Facts
}

// Facts of a loaded model.
type Facts struct {
	Architecture, Quantization, Backend string
	ContextTokens, Cells, Sequences     int
	WeightBytes, CacheBytes             uint64
	Abilities
	EmbeddingSize               int
	Memory                      []DeviceMemory // of each device that holds anything
	CellsLimit                  string         // what decided Cells, for people
	CacheTypeK, CacheTypeV      string         // formats of the KV cache; empty: it has none
	FlashAttention              bool
	KVLayout                    string // unified or streams; empty: it has no KV cache
	Sampling, SamplingDecidedBy string // host or device, and why, for people; empty: it draws no tokens
}

// Abilities are what requests may ask of a model.
type Abilities struct {
	ChatTemplate                  bool
	Tools, Reasoning              bool // the chat template has a form for them
	Generates, Embeddings, Scores bool // the tasks that are possible
}

// DeviceMemory is what of a base lies on one device, in bytes.
type DeviceMemory struct {
	Device                                string
	WeightBytes, CacheBytes, ComputeBytes uint64
	AdapterBytes                          uint64 // of the versions that are loaded now
}

// Catalog is what an engine can serve.
type Catalog struct {
	Models    []Model
	CacheSize int
	Loaded    []Loaded
}

// Model is one base with its versions.
type Model struct {
	Name, Description, Domain, DefaultVersion string
	Versions                                  []Version
	ContextTokens                             int
	Bytes                                     uint64     // of its files
	Quantization, Architecture                string     // empty: not known
	Abilities                                 *Abilities // before a load; nil: not known
}

// Version of a model; Problem says why it can't be loaded.
type Version struct{ Name, Problem string }

// Loaded is an entry of the engine's model cache.
type Loaded struct {
	Model, Version string
	Bytes          uint64
	Facts          Facts
	Loading        bool
}

// Stats of an engine. The credit for sending requests follows from them, too.
type Stats struct {
	Bases      []BaseStats
	Heartbeats []Heartbeat
}

// BaseStats of one loaded base.
type BaseStats struct {
	Model                     string
	FreeSequences, Sequences  int
	Prefilling, Decoding      int
	Waiting, FreeCells, Cells int
}

// Heartbeat of an executor or a load.
type Heartbeat struct {
	Executor, Phase string
	Counter         uint64
	Age, Budget     time.Duration
}
