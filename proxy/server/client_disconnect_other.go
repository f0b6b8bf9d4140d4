//go:build !linux

package server

import "net"

// disconnectWatcher does nothing outside of Linux: a disconnect is noticed when a write fails, for streams at the
// latest by a keep-alive.
type disconnectWatcher struct{}

func newDisconnectWatcher() (*disconnectWatcher, error) { return &disconnectWatcher{}, nil }

func (*disconnectWatcher) add(*conn) error { return nil }

func (*disconnectWatcher) remove(*conn) {}

func (*disconnectWatcher) close() {}

func setSocketOptions(c *net.TCPConn) { _ = c.SetWriteBuffer(sendBufferBytes) }
