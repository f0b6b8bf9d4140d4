package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// drainState is what Drain sends and waits for.
type drainState struct {
	grace       time.Duration
	replacement bool
	ended       chan struct{} // closed when the proxy has nothing left here
	endOnce     sync.Once
}

func (d *drainState) finish() { d.endOnce.Do(func() { close(d.ended) }) }

// ErrDrainTimeout is returned by Drain when requests were left when its context ended.
var ErrDrainTimeout = errors.New("requests were left")

// Drain tells the proxy that this engine ends, and returns when no request is left here, all were moved to another
// engine, the connection is lost, or ctx ends. replacement: another engine is expected.
func (l *Link) Drain(ctx context.Context, grace time.Duration, replacement bool) error {
	l.mu.Lock()
	if l.draining == nil {
		l.draining = &drainState{grace: grace, replacement: replacement, ended: make(chan struct{})}
	}
	d, s := l.draining, l.session
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	s.sendDraining(d)
	select {
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: %w: %w", ErrDrainTimeout, context.Cause(ctx))
	}
}

func (l *Link) drainEnded() {
	l.mu.Lock()
	d := l.draining
	l.mu.Unlock()
	if d != nil {
		d.finish()
	}
}
