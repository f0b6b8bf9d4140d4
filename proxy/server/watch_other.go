//go:build !linux

package server

import "net"

// watcher does nothing outside of Linux: a client that leaves is noticed when a write to it fails, streams by their keep-alive.
type watcher struct{}

func newWatcher() (*watcher, error) { return &watcher{}, nil }

func (*watcher) add(*conn) error { return nil }

func (*watcher) remove(*conn) {}

func (*watcher) close() {}

func tune(c *net.TCPConn) { _ = c.SetWriteBuffer(sendBufferBytes) }
