// Package link is the proxy's end of the socket: it listens, engines dial. It turns frames into the types of package
// inflight and back, checks each connection with hellos, limits and pings, and decides nothing about requests. Only
// this package and schema/wire use Cap'n Proto in the proxy.
package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

// Meter counts what happens on the socket. *metrics.Metrics is one.
type Meter interface {
	IPCSent(bytes int)
	IPCReceived(bytes int)
	// IPCCall records a call: metrics, load, ping. The code is empty for a success, otherwise deadline, disconnected,
	// unsupported or failed.
	IPCCall(method string, took time.Duration, code string)
}

// Options of a Listener. Socket and Handler must be given; a zero value of another field means its default.
type Options struct {
	Socket       string   // path, at most 100 bytes
	PeerUIDs     []uint32 // user ids, besides our own, whose engines may attach
	Handler      inflight.EngineHandler
	Meter        Meter         // nil: nothing is counted
	Build        string        // program version, for our hello
	HelloTimeout time.Duration // from connecting to the engine's hello; 5 s
	StallTimeout time.Duration // silence after which an engine counts as hung; 10 s
	Log          *slog.Logger  // nil: slog.Default()
	Wire         wire.Options  // limits of a connection
}

const (
	defaultHelloTimeout = 5 * time.Second
	defaultStallTimeout = 10 * time.Second

	pingInterval  = time.Second // also how often the socket's file is checked
	closeTimeout  = time.Second
	maxEngines    = 2   // an old one and its successor
	maxHandshakes = 4   // connections without a hello at a time
	maxPathBytes  = 100 // a Unix address holds 107; the temporary name needs the rest
	tempSuffix    = ".new"
	socketMode    = 0o660
)

// Listener owns the socket and the connections of engines.
type Listener struct {
	options  Options
	instance uint64
	closing  chan struct{} // closed by Close
	lock     *os.File      // held from Listen to Close
	running  sync.WaitGroup

	mu              sync.Mutex
	socket          *net.UnixListener
	socketInfo      fs.FileInfo // of the path, as it was after binding
	lastSocketError string      // why the socket can't be made again, as last logged
	closed          bool
	sessions        map[*session]bool // their engines have sent a hello
	handshaking     map[net.Conn]bool // connections without a hello so far
}

// Listen binds the socket, unless another proxy has it. Engines are served from Serve on.
func Listen(o Options) (*Listener, error) {
	if o.HelloTimeout == 0 {
		o.HelloTimeout = defaultHelloTimeout
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = defaultStallTimeout
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Meter == nil {
		o.Meter = nopMeter{}
	}
	l := &Listener{
		options: o, instance: rand.Uint64(), closing: make(chan struct{}),
		sessions: make(map[*session]bool), handshaking: make(map[net.Conn]bool),
	}
	if err := checkPath(o.Socket); err != nil {
		return nil, err
	}
	var err error
	if l.lock, err = lockSocket(o.Socket); err != nil {
		return nil, err
	}
	if l.socket, l.socketInfo, err = bindSocket(o.Socket); err != nil {
		_ = l.lock.Close()
		return nil, err
	}
	return l, nil
}

// Serve accepts engines until Close, which makes it return nil after every connection has ended.
func (l *Listener) Serve() error {
	defer l.running.Wait()
	l.mu.Lock()
	ln, closed := l.socket, l.closed
	if !closed {
		l.running.Go(l.watchSocket)
	}
	l.mu.Unlock()
	if closed {
		return nil
	}
	for {
		conn, err := ln.AcceptUnix()
		if err == nil {
			l.startSession(conn)
			continue
		}
		next, err := l.nextSocket(ln, err)
		if next == nil {
			return err
		}
		ln = next
	}
}

// nextSocket returns the socket to accept from after an error: a new one, the same one after a pause, or nil for none.
func (l *Listener) nextSocket(ln *net.UnixListener, err error) (*net.UnixListener, error) {
	l.mu.Lock()
	next, closed := l.socket, l.closed
	l.mu.Unlock()
	if closed {
		return nil, nil
	}
	if next != ln {
		return next, nil
	}
	if errors.Is(err, net.ErrClosed) {
		return nil, fmt.Errorf("accept engine: %w", err)
	}
	l.options.Log.Error("accepting an engine failed", "error", err) // out of file descriptors, usually
	select {
	case <-l.closing:
	case <-time.After(pingInterval):
	}
	return ln, nil
}

// startSession checks who connected and starts a session.
func (l *Listener) startSession(conn *net.UnixConn) {
	if err := l.admitConn(conn); err != nil {
		l.options.Log.Warn("an engine was turned away", "error", err)
		_ = conn.Close()
		return
	}
	go func() {
		defer l.running.Done() // admitConn added it
		s := newSession(l, conn)
		s.run()
		l.mu.Lock()
		delete(l.handshaking, conn)
		delete(l.sessions, s)
		l.mu.Unlock()
	}()
}

// admitConn checks a new connection and counts it as running.
func (l *Listener) admitConn(conn *net.UnixConn) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	if uid != uint32(os.Getuid()) && !slices.Contains(l.options.PeerUIDs, uid) {
		return fmt.Errorf("user id %d is neither ours nor in ENGINE_PEER_UIDS", uid)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errors.New("the proxy stops")
	case len(l.handshaking) >= maxHandshakes:
		return fmt.Errorf("%d connections haven't said hello yet", len(l.handshaking))
	}
	l.handshaking[conn] = true
	l.running.Add(1)
	return nil
}

var errTooManyEngines = fmt.Errorf("%d engines are attached already", maxEngines)

// register adds a session whose engine has sent its hello, unless there are enough engines.
func (l *Listener) register(s *session) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the proxy stops")
	}
	if len(l.sessions) >= maxEngines {
		return errTooManyEngines
	}
	delete(l.handshaking, s.rawConn)
	l.sessions[s] = true
	return nil
}

// Close stops accepting, tells every engine to go away and waits for the connections to end. The socket's file stays,
// since it may belong to a successor. It may be called more than once.
func (l *Listener) Close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	sessions := make([]*session, 0, len(l.sessions))
	for s := range l.sessions {
		sessions = append(sessions, s)
	}
	if first {
		close(l.closing)
		_ = l.socket.Close()
		_ = l.lock.Close()
		for conn := range l.handshaking {
			_ = conn.Close() // ends the wait for a hello
		}
	}
	l.mu.Unlock()
	for _, s := range sessions {
		s.closeFor("goaway", "the proxy stops")
	}
	l.running.Wait()
}

// writeHello writes our first frame.
func (l *Listener) writeHello(f schema.Frame) error {
	h, err := f.NewHello()
	if err != nil {
		return err
	}
	h.SetProtocol(wire.Protocol)
	h.SetMinProtocol(wire.MinProtocol)
	h.SetInstanceId(l.instance)
	return h.SetBuild(l.options.Build)
}

// nopMeter counts nothing.
type nopMeter struct{}

func (nopMeter) IPCSent(int)                           {}
func (nopMeter) IPCReceived(int)                       {}
func (nopMeter) IPCCall(string, time.Duration, string) {}

// flushAndClose ends a connection after what is queued and the reason were sent.
func flushAndClose(conn *wire.Conn, reason string) {
	_ = conn.SendControl(func(f schema.Frame) error { return f.SetGoAway(reason) })
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.CloseAfterFlush(ctx) // the connection ends either way
}
