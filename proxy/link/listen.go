// Package link is the proxy's end of the socket: it listens, engines dial. It turns frames into what package inflight understands and
// back, keeps a connection honest with hellos, limits and pings, and decides nothing about requests. Only here and in schema/wire does
// the proxy know Cap'n Proto.
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
	// IPCCall records a unary call: metrics, load, ping. An empty code is a success, otherwise deadline, disconnected, unsupported, failed.
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

	pingEvery      = time.Second // also how often the socket's file is looked after
	goodbyeTimeout = time.Second
	maxEngines     = 2   // an old one and its successor
	maxGreeting    = 4   // connections that haven't said hello
	maxPathBytes   = 100 // a Unix address holds 107; the temporary name needs the rest
	newSuffix      = ".new"
	socketMode     = 0o660
)

// Listener owns the socket and the connections of engines.
type Listener struct {
	o        Options
	instance uint64
	quit     chan struct{} // closed by Close
	lock     *os.File      // held from Listen to Close
	running  sync.WaitGroup

	mu       sync.Mutex
	socket   *net.UnixListener
	file     fs.FileInfo // of the path, as it was after binding
	trouble  string      // why the socket can't be made again, as it was logged
	closed   bool
	sessions map[*session]bool // said hello
	greeting map[net.Conn]bool
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
		o.Meter = unmetered{}
	}
	l := &Listener{o: o, instance: rand.Uint64(), quit: make(chan struct{}), sessions: make(map[*session]bool), greeting: make(map[net.Conn]bool)}
	if err := checkPath(o.Socket); err != nil {
		return nil, err
	}
	var err error
	if l.lock, err = lock(o.Socket); err != nil {
		return nil, err
	}
	if l.socket, l.file, err = bind(o.Socket); err != nil {
		_ = l.lock.Close()
		return nil, err
	}
	return l, nil
}

func checkPath(path string) error {
	if path == "" || len(path) > maxPathBytes {
		return fmt.Errorf("engine socket path %q has %d bytes, 1 to %d are possible", path, len(path), maxPathBytes)
	}
	return nil
}

// bind listens under a temporary name and renames it, so that the path always leads to a socket that is listened on. What lies there is
// replaced only if it is a socket on which nobody listens.
func bind(path string) (*net.UnixListener, fs.FileInfo, error) {
	if err := replaceable(path); err != nil {
		return nil, nil, err
	}
	return place(path)
}

// place is bind without a look at what lies there.
func place(path string) (*net.UnixListener, fs.FileInfo, error) {
	temporary := path + newSuffix
	_ = os.Remove(temporary) // of a proxy that ended right here; listening fails if it can't go
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("listen for engines: %w", err)
	}
	ln.SetUnlinkOnClose(false) // the path may be a successor's by then
	file, err := install(temporary, path)
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(temporary) // best effort: an odd name in a directory of ours
		return nil, nil, err
	}
	return ln, file, nil
}

// replaceable finds out whether what lies at a path may go. Whoever listens there may not know our lock.
func replaceable(path string) error {
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("engine socket path %q exists and is no socket", path)
	}
	listening, err := Listening(path)
	if err == nil && listening {
		err = inUse(path)
	}
	return err
}

func install(temporary, path string) (fs.FileInfo, error) {
	if err := os.Chmod(temporary, socketMode); err != nil {
		return nil, fmt.Errorf("set mode of engine socket: %w", err)
	}
	file, err := os.Lstat(temporary)
	if err != nil {
		return nil, fmt.Errorf("look at engine socket: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, fmt.Errorf("install engine socket: %w", err)
	}
	return file, nil
}

// Serve accepts engines until Close, which makes it return nil after every connection has ended.
func (l *Listener) Serve() error {
	defer l.running.Wait()
	l.mu.Lock()
	ln, closed := l.socket, l.closed
	if !closed {
		l.running.Go(l.watch)
	}
	l.mu.Unlock()
	if closed {
		return nil
	}
	for {
		conn, err := ln.AcceptUnix()
		if err == nil {
			l.welcome(conn)
			continue
		}
		next, err := l.after(ln, err)
		if next == nil {
			return err
		}
		ln = next
	}
}

// after tells how accepting goes on after an error: on a new socket, on the same one after a pause, or, with nil, no more.
func (l *Listener) after(ln *net.UnixListener, err error) (*net.UnixListener, error) {
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
	l.o.Log.Error("accepting an engine failed", "error", err) // out of file descriptors, usually
	select {
	case <-l.quit:
	case <-time.After(pingEvery):
	}
	return ln, nil
}

// watch binds again when the path no longer leads to our socket: somebody cleaned up, or put another file there.
func (l *Listener) watch() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-tick.C:
			l.look()
		}
	}
}

// look asks whoever lies at the path without the mutex, since an answer may take a while.
func (l *Listener) look() {
	if l.isSettled() {
		return
	}
	err := replaceable(l.o.Socket)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.leadsHere() {
		return
	}
	var ln *net.UnixListener
	var file fs.FileInfo
	if err == nil {
		ln, file, err = place(l.o.Socket)
	}
	if err != nil {
		l.complain(err)
		return
	}
	l.trouble = ""
	l.o.Log.Warn("the engine socket was gone and is made again", "socket", l.o.Socket)
	old := l.socket
	l.socket, l.file = ln, file
	_ = old.Close() // wakes Serve, which goes on with the new one
}

// isSettled tells whether there is nothing to do about the socket's file.
func (l *Listener) isSettled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.leadsHere()
}

// leadsHere tells whether the path leads to our socket. It needs l.mu.
func (l *Listener) leadsHere() bool {
	now, err := os.Lstat(l.o.Socket)
	return err == nil && os.SameFile(now, l.file)
}

// complain says once why engines can't find us. look goes on trying. It needs l.mu.
func (l *Listener) complain(err error) {
	if text := err.Error(); text != l.trouble {
		l.trouble = text
		l.o.Log.Error("the engine socket is gone and can't be made again yet; no new engine finds this proxy", "socket", l.o.Socket, "error", err)
	}
}

// welcome checks who connected and starts its session.
func (l *Listener) welcome(conn *net.UnixConn) {
	if err := l.admit(conn); err != nil {
		l.o.Log.Warn("an engine was turned away", "error", err)
		_ = conn.Close()
		return
	}
	go func() {
		defer l.running.Done() // admit added it
		s := newSession(l, conn)
		s.run()
		l.mu.Lock()
		delete(l.greeting, conn)
		delete(l.sessions, s)
		l.mu.Unlock()
	}()
}

// admit checks a connection and counts it as running.
func (l *Listener) admit(conn *net.UnixConn) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	if uid != uint32(os.Getuid()) && !slices.Contains(l.o.PeerUIDs, uid) {
		return fmt.Errorf("user id %d is neither ours nor in ENGINE_PEER_UIDS", uid)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errors.New("the proxy stops")
	case len(l.greeting) >= maxGreeting:
		return fmt.Errorf("%d connections haven't said hello yet", len(l.greeting))
	}
	l.greeting[conn] = true
	l.running.Add(1)
	return nil
}

var errFull = fmt.Errorf("%d engines are attached already", maxEngines)

// seat gives a session that said hello one of the places.
func (l *Listener) seat(s *session) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the proxy stops")
	}
	if len(l.sessions) >= maxEngines {
		return errFull
	}
	delete(l.greeting, s.raw)
	l.sessions[s] = true
	return nil
}

// Close stops accepting, says goodbye to every engine and waits for the connections to end. The socket's file stays, since it may
// belong to a successor. It may be called often.
func (l *Listener) Close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	sessions := make([]*session, 0, len(l.sessions))
	for s := range l.sessions {
		sessions = append(sessions, s)
	}
	if first {
		close(l.quit)
		_ = l.socket.Close()
		_ = l.lock.Close()
		for conn := range l.greeting {
			_ = conn.Close() // ends the wait for a hello
		}
	}
	l.mu.Unlock()
	for _, s := range sessions {
		s.leave("goaway", "the proxy stops")
	}
	l.running.Wait()
}

// hello is our first frame.
func (l *Listener) hello(f schema.Frame) error {
	h, err := f.NewHello()
	if err != nil {
		return err
	}
	h.SetProtocol(wire.Protocol)
	h.SetMinProtocol(wire.MinProtocol)
	h.SetInstanceId(l.instance)
	return h.SetBuild(l.o.Build)
}

type unmetered struct{}

func (unmetered) IPCSent(int)                           {}
func (unmetered) IPCReceived(int)                       {}
func (unmetered) IPCCall(string, time.Duration, string) {}

// flushAndClose ends a connection after what is queued, and a reason, went out.
func flushAndClose(conn *wire.Conn, reason string) {
	_ = conn.SendControl(func(f schema.Frame) error { return f.SetGoAway(reason) })
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = conn.CloseAfterFlush(ctx) // the connection ends either way
}
