package mock

import "sync/atomic"

// Adapter is a version that doesn't change the answers.
type Adapter struct {
	name   string
	closed atomic.Bool
}

// Name is the version's name.
func (a *Adapter) Name() string { return a.name }

// Bytes is what Close frees.
func (a *Adapter) Bytes() int64 { return int64(len(a.name)) }

// Close makes a later Step with it fail; with a native library that would be a crash.
func (a *Adapter) Close() error {
	a.closed.Store(true)
	return nil
}
