package server

import (
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// disconnectEvents are raised when a client disconnects, even behind bytes that nobody has read yet. One shot: it
// happens only once.
const disconnectEvents = unix.EPOLLRDHUP | unix.EPOLLONESHOT

// userTimeout is how long sent bytes may stay unacknowledged until the peer counts as lost.
const userTimeout = 30 * time.Second

// disconnectWatcher notices clients that disconnect, with one goroutine and one epoll for all connections. Connections
// are registered once and found by an id of their own, since file descriptors are reused.
type disconnectWatcher struct {
	epoll int
	wake  int // eventfd that ends run
	done  chan struct{}

	mu    sync.Mutex
	next  uint64
	conns map[uint64]*conn
}

// newDisconnectWatcher starts a watcher; close ends it.
func newDisconnectWatcher() (*disconnectWatcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	w := &disconnectWatcher{epoll: epoll, wake: wake, done: make(chan struct{}), conns: make(map[uint64]*conn)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, event(0, unix.EPOLLIN)); err != nil {
		_ = unix.Close(epoll)
		_ = unix.Close(wake)
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	go w.run()
	return w, nil
}

// event makes an epoll event with an id in the kernel's 64 bits of user data.
func event(id uint64, events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
}

func eventID(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

func (w *disconnectWatcher) add(c *conn) error {
	w.mu.Lock()
	w.next++
	c.id = w.next
	w.conns[c.id] = c
	w.mu.Unlock()
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	var ctl error
	if err := raw.Control(func(fd uintptr) {
		ctl = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(fd), event(c.id, disconnectEvents))
	}); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	if ctl != nil {
		return fmt.Errorf("watch connection: %w", ctl)
	}
	return nil
}

// remove removes c; the kernel drops the registration when the file is closed.
func (w *disconnectWatcher) remove(c *conn) {
	w.mu.Lock()
	delete(w.conns, c.id)
	w.mu.Unlock()
}

func (w *disconnectWatcher) run() {
	defer close(w.done)
	var events [256]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		for i := range events[:n] {
			id := eventID(&events[i])
			if id == 0 {
				return
			}
			w.mu.Lock()
			c := w.conns[id]
			w.mu.Unlock()
			if c != nil {
				c.onDisconnect()
			}
		}
	}
}

// close ends the watcher and waits for it. No connection may be added afterwards.
func (w *disconnectWatcher) close() {
	one := [8]byte{1}
	_, _ = unix.Write(w.wake, one[:])
	<-w.done
	_ = unix.Close(w.epoll)
	_ = unix.Close(w.wake)
}

// setSocketOptions bounds the memory and time that a slow or vanished peer can hold. A failure only loosens the bound.
func setSocketOptions(c *net.TCPConn) {
	_ = c.SetWriteBuffer(sendBufferBytes)
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}
}
