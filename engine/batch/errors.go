package batch

import (
	"errors"
	"fmt"
)

// What Submit, Attach, Detach and Do refuse with. After a refusal the executor keeps nothing of the request.
var (
	// ErrUnknownBase: nothing is attached under that key, or it is being detached.
	ErrUnknownBase = errors.New("base is not attached")
	// ErrBaseExists: Attach with a key that is in use.
	ErrBaseExists = errors.New("base is already attached")
	// ErrTooMany: Options.MaxRequests requests are in progress.
	ErrTooMany = errors.New("too many requests")
	// ErrInvalid: a field of the request is impossible; the text says which.
	ErrInvalid = errors.New("invalid request")
	// ErrDuplicate: the same id and attempt is in progress.
	ErrDuplicate = errors.New("request is already in hand")
	// ErrContextExceeded: the prompt can't fit the context, even alone.
	ErrContextExceeded = errors.New("context length exceeded")
	// ErrClosed: the executor was closed.
	ErrClosed = errors.New("executor is closed")
)

// Errors of a Runner or a Sampler that have a failure code of their own; everything else is FailDecode (Step) or
// FailInternal (Sampler).
var (
	// ErrNoCells: Step found no room in the KV cache. Another sequence is preempted, or the request fails with
	// FailOutOfMemory.
	ErrNoCells = errors.New("no free KV cells")
	// ErrCellsLost: the cells of a sequence aren't those that its slice goes on from. It is preempted, so that they are
	// computed again.
	ErrCellsLost = errors.New("KV cells of the sequence are gone")
	// ErrGrammarTooComplex: a draw or the building of a grammar took longer than Sampling.GrammarBudget.
	ErrGrammarTooComplex = errors.New("grammar is too complex")
)

// FieldError is an ErrInvalid for which one field of the request is to blame.
type FieldError struct {
	Field   string // as clients call it
	Problem string
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s %s", e.Field, e.Problem) }

// Unwrap makes it an ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }
