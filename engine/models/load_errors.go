package models

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrModelBusy is returned by Acquire when no place in the cache became free in time.
	ErrModelBusy = errors.New("every place in the model cache is in use")
	// ErrClosed is returned by Acquire after Close.
	ErrClosed = errors.New("model cache is closed")

	errLoadTimeout = errors.New("loading took too long")
)

// badFileError marks errors that are caused by the file.
type badFileError struct{ error }

func (e badFileError) Unwrap() error { return e.error }

func badFile(err error) error { return badFileError{err} }

// asLoadError returns err as a *LoadError, with its reason out of the closed set.
func asLoadError(err error, what string) *LoadError {
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
		if _, ok := errors.AsType[badFileError](err); ok {
			reason = ReasonBadFormat
		}
	}
	return &LoadError{Reason: reason, What: what, Err: err}
}

// filesAreBroken reports whether the files are at fault, so that trying again won't help.
func (e *LoadError) filesAreBroken() bool {
	return e.Reason == ReasonBadFormat || e.Reason == ReasonAdapterMismatch
}

// interruptedLoad is the error of a load whose context ended for cause.
func interruptedLoad(cause, err error, what string) error {
	if errors.Is(err, cause) {
		return &LoadError{Reason: asLoadError(cause, what).Reason, What: what, Err: cause}
	}
	return &LoadError{Reason: asLoadError(cause, what).Reason, What: what, Err: fmt.Errorf("%w: %w", cause, err)}
}

// maxPublicBytes bounds LoadError.Public, in bytes.
const maxPublicBytes = 300

// absolutePath matches an absolute path in a message of the native library, up to its last part.
var absolutePath = regexp.MustCompile(`(^|[\s'"(=:])/(?:[^/\s'"]+/)+`)

// withPublicText returns the error with a text for clients: its own, with the files' names only instead of their paths.
func (c *Cache) withPublicText(src *source, err *LoadError) *LoadError {
	text := err.Err.Error()
	for _, a := range []*weightsFile{src.base, src.adapter} {
		if a == nil {
			continue
		}
		for _, p := range a.parts {
			text = strings.ReplaceAll(text, filepath.Dir(p.openPath)+"/", "")
			text = strings.ReplaceAll(text, filepath.Dir(p.realPath)+"/", "")
		}
	}
	if c.fileCache.dir != "" {
		text = strings.ReplaceAll(text, filepath.Join(c.fileCache.dir, unpackedSubdir)+"/", "")
	}
	text = absolutePath.ReplaceAllString(text, "$1")
	withText := *err // the error may be shared with other waiters
	withText.Public = strings.ToValidUTF8(text[:min(len(text), maxPublicBytes)], "")
	return &withText
}

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
	Public string // Err's text for clients, without a path of this machine; empty: they get only the reason
}

func (e *LoadError) Error() string { return fmt.Sprintf("load %s: %s: %v", e.What, e.Reason, e.Err) }

// Unwrap returns the cause.
func (e *LoadError) Unwrap() error { return e.Err }
