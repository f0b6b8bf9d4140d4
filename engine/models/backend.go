package models

import (
	"context"
	"errors"
)

// Backend loads what the registry found; packages llama and mock implement it.
type Backend interface {
	// LoadBase reads weights and makes the context. It runs beside the step loop, for seconds to minutes; ctx aborts
	// it. Errors are *LoadError.
	LoadBase(ctx context.Context, spec BaseSpec, progress func(Progress)) (Base, error)
}

// Progress of a running load.
type Progress struct {
	Phase string  // unpack, checksum, memory, weights, context, warm-up, adapter
	Ratio float64 // 0 … 1 of this phase
}

// BaseSpec names one base on disk. The paths come from the registry, never from a request.
type BaseSpec struct {
	Name     string
	Key      string // the executor's name of the base
	Path     string // first file of a split GGUF
	Context  int    // tokens; 0: backend default
	Parallel int    // sequences
	MMap     bool
	Template TemplateMode
	Pooling  Pooling
	// Attention has no field that is wrong for every model; the backend checks the rest.
	Attention Attention
	// WeightBytes is about what the weights will take; 0: not known.
	WeightBytes int64
	// HostRoom is how much of the host's memory the model may fill, weights that lie there included, and HostFree how
	// much is free: what counts for weights that don't fit the room and are loaded all the same. 0: what the backend
	// finds. Not every library knows a container's limit.
	HostRoom, HostFree int64
	// MoreFits reports whether so many bytes may be taken beside what is loaded, long after the load; nil: always.
	MoreFits func(bytes int64) bool
}

// TemplateMode says whether prompts go through the model's chat template.
type TemplateMode uint8

// Template modes; auto applies the template when the model has one.
const (
	TemplateAuto TemplateMode = iota
	TemplateOff
	TemplateOn
)

// Base is a loaded base model. Close frees it, when the step loop uses it no more.
type Base interface {
	Facts() Facts // of now: adapters come and go. Safe from any goroutine, and waits for nothing.
	// AdapterFits reports whether the accelerators that this base lies on have room for an adapter whose file has so
	// many bytes, and which takes slotBytes in a place beside others: below the memory watermark, or, with nothing else
	// loaded (alone), in what is free. Safe from any goroutine.
	AdapterFits(fileBytes, slotBytes int64, alone bool) bool
	// LoadAdapter reads a LoRA file beside the step loop; only its init and free run between steps. Errors are
	// *LoadError.
	LoadAdapter(ctx context.Context, spec AdapterSpec) (Adapter, error)
	// Render applies the chat template and tokenises; the user's text never becomes a control token. Safe from any
	// goroutine.
	Render(ctx context.Context, in Input) (Prompt, error)
	// NewParser returns the parser of one answer to a prompt that was rendered with SplitOutput; state is the prompt's
	// Parser, maybe of another engine. nil: the whole answer is content.
	NewParser(state []byte) (Parser, error)
	// WriteOut is the text of tokens, control tokens as they are written. Safe from any goroutine.
	WriteOut(tokens []int32) []byte
	TextCoder
	Embedder
	Close() error
}

// AdapterSpec names one LoRA version on disk.
type AdapterSpec struct {
	Name string // version
	Path string
}

// Adapter is a loaded LoRA version.
type Adapter interface {
	Name() string
	Bytes() int64
	Close() error
}

// Facts of a loaded base, for metrics and /status.
type Facts struct {
	Architecture  string
	Quantization  string
	Parameters    int64
	ContextTokens int   // what one sequence may hold
	TrainContext  int   // what the model was trained for
	Cells         int   // KV cells, all sequences together
	Sequences     int   // after cutting to the memory watermark
	WeightBytes   int64 // what Close frees, without the KV cache
	CacheBytes    int64 // KV cache and compute buffers
	KV            KVCache
	CellsLimit    string // what decided the number of cells, for people
	Sampling      Sampling
	Memory        []DeviceMemory // of each device that holds anything
	Device        string
	Backend       string // cpu, cuda, mock …
	Abilities
	EmbeddingSize int // numbers of an embedding
}

// DeviceMemory is what of a base lies on one device, in bytes.
type DeviceMemory struct {
	Device                                string
	WeightBytes, CacheBytes, ComputeBytes int64 // its own
	AdapterBytes                          int64 // of the adapters that are loaded now
}

// Sampling is where the candidates are found between which a base's tokens are drawn, as it was decided at load.
// Neither is set for a base that draws no tokens.
type Sampling struct {
	Place     SamplingPlace
	DecidedBy string // for people
}

// SamplingPlace is where candidates are found.
type SamplingPlace string

// Places of Sampling.
const (
	SamplingHost   SamplingPlace = "host"   // in whole rows of logits
	SamplingDevice SamplingPlace = "device" // which passes on the largest logits of a row
)

// KVCache is what a base keeps of the tokens before, as it was made.
type KVCache struct {
	Bytes     int64 // of all cells, as measured; with recurrent models their states
	KeyType   CacheType
	ValueType CacheType
	Flash     bool     // attention is computed in one operation
	Layout    KVLayout // unified or streams
}

// Input is a request's prompt as the client wrote it. Messages, when given, replace Prompt and System.
type Input struct {
	Prompt     string
	System     string
	HasSystem  bool // there is a system text, maybe an empty one: the template then writes none of its own
	Messages   []Message
	Tokens     []int32 // the prompt as tokens, in place of all of these
	Raw        bool    // no chat template, even if the model has one
	JSONSchema []byte  // checked JSON, or nil
	Grammar    string  // GBNF, or empty
	MaxTokens  int     // prompts longer than this aren't worth finishing: ErrPromptTooLong

	Tools             []Tool
	ToolChoice        ToolChoice
	ParallelToolCalls bool   // an answer may have more than one call
	TemplateOptions   []byte // JSON object of variables for the chat template, or nil
	Continue          bool   // the answer goes on with the last message, which is the assistant's
	SplitOutput       bool   // the answer is taken apart by NewParser
}

// Message of a chat.
type Message struct {
	Role       string // system, user, assistant, tool
	Content    string
	Name       string     // of a tool's message: the function that was called
	ToolCalls  []ToolCall // of an assistant
	ToolCallID string     // of a tool's message
	Reasoning  string     // of an assistant: what it thought before it answered
}

// Prompt is the rendered form, which is also what a replay sends.
type Prompt struct {
	Tokens   []int32
	Grammar  string    // in the engine's own form; empty: none
	Triggers []Trigger // the grammar begins at the first of these; none: with the answer
	Stops    []string
	Parser   []byte // what NewParser needs; not empty with SplitOutput
}

// Trigger is a text in an answer at which its grammar begins. The zero Kind is no trigger.
type Trigger struct {
	Kind  TriggerKind
	Value string // the text, or the pattern
	Token int32  // for TriggerToken
}

// TriggerKind says how a Trigger is found. The numbers are on the wire.
type TriggerKind uint8

// Kinds of triggers.
const (
	TriggerToken       TriggerKind = iota + 1 // this token
	TriggerWord                               // this text
	TriggerPattern                            // a text that matches this regular expression
	TriggerPatternFull                        // the whole answer so far matches it

	// Not triggers: between these texts there are none.
	TriggerReasoningStart // an answer that begins with this text has reasoning first; without one any answer has
	TriggerReasoningEnd   // one of the texts that end the reasoning, and may be a trigger itself
)

// Parser splits the text of one answer into parts. What it returns depends on the texts alone, so that an answer which
// is computed again is split in the same way. One goroutine at a time; no method returns an error: what can't be parsed
// is content.
type Parser interface {
	// Shown are control tokens whose text the parser must see, though an answer's text doesn't have them.
	Shown() map[int32]string
	// Push takes the text that one token released and returns the parts that are certain then.
	Push(text []byte) []Part
	// Finish returns what is left. cut: the answer ended because it was long enough.
	Finish(cut bool) []Part
	Close()
}

// Part is a piece of an answer.
type Part struct {
	Kind PartKind
	Text []byte // of all but PartCall
	ID   string // of PartCall, as the model wrote it; may be empty
	Name string // of PartCall
}

// PartKind says what a Part is.
type PartKind uint8

// Kinds of parts.
const (
	PartContent   PartKind = iota + 1
	PartReasoning          // what the model thinks before it answers
	PartCall               // a tool call begins; its arguments follow
	PartArguments          // JSON text, a part of the arguments of the call that began last
)

// ErrPromptTooLong is returned by Render for a prompt that can't fit the context.
var ErrPromptTooLong = errors.New("prompt is longer than the context")

// ErrMessages is wrapped by Render's errors about messages that the model's chat template refuses; the text may be the
// template's.
var ErrMessages = errors.New("the model can't take these messages")

// ErrTools is wrapped by Render's errors about tools of whose schemas no grammar can be made.
var ErrTools = errors.New("unusable tools")
