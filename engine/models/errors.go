package models

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

var (
	// ErrModelBusy is returned by Acquire when no place in the cache became free in time.
	ErrModelBusy = errors.New("every place in the model cache is in use")
	// ErrClosed is returned by Acquire after Close.
	ErrClosed = errors.New("model cache is closed")

	errLoadTimeout = errors.New("loading took too long")
)

// formatError marks errors that are the file's fault.
type formatError struct{ error }

func (e formatError) Unwrap() error { return e.error }

func badFile(err error) error { return formatError{err} }

// loadError gives an error its place in the closed set of reasons.
func loadError(err error, what string) *LoadError {
	if le, ok := errors.AsType[*LoadError](err); ok {
		return le
	}
	reason := ReasonOther
	switch {
	case errors.Is(err, errLoadTimeout), errors.Is(err, context.DeadlineExceeded):
		reason = ReasonTimeout
	case errors.Is(err, fs.ErrNotExist):
		reason = ReasonNotFound
	case errors.Is(err, unix.ENOMEM):
		reason = ReasonOutOfMemory
	default:
		if _, ok := errors.AsType[formatError](err); ok {
			reason = ReasonBadFormat
		}
	}
	return &LoadError{Reason: reason, What: what, Err: err}
}

// brokenFiles tells whether the files are at fault, so that trying again won't help.
func (e *LoadError) brokenFiles() bool {
	return e.Reason == ReasonBadFormat || e.Reason == ReasonAdapterMismatch
}
