package mock

import "sync/atomic"

// Adapter is a version that changes nothing.
type Adapter struct {
	name   string
	closed atomic.Bool
}

// Name of the version.
func (a *Adapter) Name() string { return a.name }

// Bytes that closing it would free.
func (a *Adapter) Bytes() int64 { return int64(len(a.name)) }

// Close makes a later Step with it fail; with a native library that would be a crash.
func (a *Adapter) Close() error {
	a.closed.Store(true)
	return nil
}
