package models

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Backend loads what the registry found; llama.cpp and the mock each give one.
type Backend interface {
	// LoadBase reads weights and makes the context. Runs beside the step loop, for seconds to minutes; ctx aborts it. Errors are
	// *LoadError.
	LoadBase(ctx context.Context, spec BaseSpec, progress func(Progress)) (Base, error)
}

// Progress of a load in hand.
type Progress struct {
	Phase string  // unpack, checksum, weights, context, adapter
	Ratio float64 // 0 … 1 of this phase
}

// BaseSpec names one base on disk. The paths come from the registry, never from a request.
type BaseSpec struct {
	Name     string
	Path     string // first file of a split GGUF
	Context  int    // tokens; 0: backend default
	Parallel int    // sequences
	MMap     bool
	Template TemplateMode
	// FreeBytes is the memory that is left beside the weights; 0: what the backend finds. A container's limit isn't known to every library.
	FreeBytes int64
}

// TemplateMode says whether prompts go through the model's chat template.
type TemplateMode uint8

// Template modes; auto applies the template when the model has one.
const (
	TemplateAuto TemplateMode = iota
	TemplateOff
	TemplateOn
)

// Base is a loaded base model. Close frees it and waits for the step loop to let go.
type Base interface {
	Facts() Facts
	// LoadAdapter reads a LoRA file beside the loop; only its init and free run between steps. Errors are *LoadError.
	LoadAdapter(ctx context.Context, spec AdapterSpec) (Adapter, error)
	// Render applies the chat template and tokenises; the user's text never gives a control token. Safe from any goroutine.
	Render(ctx context.Context, in Input) (Prompt, error)
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
	Device        string
	Backend       string // cpu, cuda, mock …
	ChatTemplate  bool
}

// Input is what a client wrote. Messages, when given, replace Prompt and System.
type Input struct {
	Prompt     string
	System     string
	HasSystem  bool // a system text is given, be it empty: the template then writes none of its own
	Messages   []Message
	Raw        bool   // no chat template, whatever the model has
	JSONSchema []byte // checked JSON, or nil
	Grammar    string // GBNF, or empty
	MaxTokens  int    // prompts longer than this aren't worth finishing: ErrPromptTooLong
}

// Message of a chat.
type Message struct{ Role, Content string }

// Prompt is the rendered form, which is also what a replay sends.
type Prompt struct {
	Tokens  []int32
	Grammar string // in the engine's own words; empty: none
	Stops   []string
}

// ErrPromptTooLong is returned by Render for a prompt that can't fit the context.
var ErrPromptTooLong = errors.New("prompt is longer than the context")

// ErrMessages is wrapped by Render's errors about messages that the model's chat template refuses; the text may be the template's.
var ErrMessages = errors.New("the model can't take these messages")

// Reason is the closed set of load failures.
type Reason string

// Load failure reasons, also metric labels.
const (
	ReasonNotFound        Reason = "not_found"
	ReasonBadFormat       Reason = "bad_format"
	ReasonOutOfMemory     Reason = "out_of_memory"
	ReasonTimeout         Reason = "timeout"
	ReasonAdapterMismatch Reason = "adapter_mismatch"
	ReasonOther           Reason = "other"
)

// LoadError says why a model or adapter could not be loaded.
type LoadError struct {
	Reason Reason
	What   string // which model, version or file
	Err    error
	Public string // what of Err clients may be told, without a path of this machine; empty: only the reason
}

func (e *LoadError) Error() string { return fmt.Sprintf("load %s: %s: %v", e.What, e.Reason, e.Err) }

// Unwrap gives the cause.
func (e *LoadError) Unwrap() error { return e.Err }

// Event tells the proxy what happens to an entry.
type Event struct {
	Kind     EventKind
	Model    string
	Version  string
	Progress Progress
	Took     time.Duration // EventLoaded
	Bytes    int64         // EventLoaded: what evicting this entry would free (F18)
	Facts    Facts         // EventLoaded of a base
	Reason   string        // EventLoadFailed: a Reason; EventEvicted: lru, memory, changed, admin
	Message  string        // EventLoadFailed, for people
	Told     bool          // EventLoadFailed: the log has it already
}

// EventKind of an Event.
type EventKind uint8

// Event kinds.
const (
	EventLoading EventKind = iota + 1
	EventProgress
	EventLoaded
	EventLoadFailed
	EventEvicted
)
