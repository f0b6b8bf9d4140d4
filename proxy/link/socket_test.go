package link

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSocketFile(t *testing.T) {
	b := newHandler()
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Socket: path, Handler: b}); err == nil {
		t.Fatal("a file that is no socket was replaced")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Socket: strings.Repeat("x", maxPathBytes+1), Handler: b}); err == nil {
		t.Error("a path that is too long was taken")
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	l := listen(t, Options{Socket: path, Handler: b})
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != socketMode || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	attached, _ := attach(t, l, b, 1)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, l)
	attached.stats(1) // the engine that was there stays
	b.next(t, "stats")
	attach(t, l, b, 2)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 2 { // with the lock
		t.Errorf("files left: %v", left)
	}
}

// awaitSocket waits until the path leads to the listener again, which looks once a second.
func awaitSocket(t *testing.T, l *Listener) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := within(t)
	for !l.isReachable() {
		select {
		case <-limit.Done():
			t.Fatal("the socket wasn't made again")
		case <-tick.C:
		}
	}
}

func (l *Listener) isReachable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leadsHere()
}

// stranger listens on a path as a program would that knows nothing of the lock.
func stranger(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func checkRefused(t *testing.T, path string) {
	t.Helper()
	l, err := Listen(Options{Socket: path, Handler: newHandler()})
	if err == nil {
		l.Close()
		t.Fatal("a second proxy took the socket")
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "ENGINE_SOCKET") {
		t.Errorf("the error doesn't say which socket and what to do: %v", err)
	}
}

func TestSecondProxyIsRefused(t *testing.T) {
	b := newHandler()
	path := socketPath(t)
	first, err := Listen(Options{Socket: path, Handler: b})
	if err != nil {
		t.Fatal(err)
	}
	checkRefused(t, path) // also before it serves
	first.Close()
	l := listen(t, Options{Socket: path, Handler: b}) // what it left is free
	checkRefused(t, path)
	attach(t, l, b, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, path)
}

func TestSocketOfSomebodyWithoutALockIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	ln := stranger(t, path)
	checkRefused(t, path)
	_ = ln.Close()
	listen(t, Options{Socket: path, Handler: newHandler()})
}

func TestOfTwoThatStartTogetherOneListens(t *testing.T) {
	for range 20 {
		path := socketPath(t)
		var starting sync.WaitGroup
		began := make(chan struct{})
		won := make(chan *Listener, 8)
		for range cap(won) {
			starting.Go(func() {
				<-began
				if l, err := Listen(Options{Socket: path, Handler: newHandler()}); err == nil {
					won <- l
				}
			})
		}
		close(began)
		starting.Wait()
		if len(won) != 1 {
			t.Errorf("%d of %d listen", len(won), cap(won))
		}
		for range len(won) {
			(<-won).Close()
		}
	}
}

// Whoever took the path away, the first proxy gets its engines again once that one is gone.
func TestSocketThatWasReplacedIsMadeAgain(t *testing.T) {
	b := newHandler()
	var log lockedBuffer
	l := listen(t, Options{Handler: b, Log: slog.New(slog.NewTextHandler(&log, nil))})
	other := stranger(t, l.o.Socket+".other")
	if err := os.Rename(l.o.Socket+".other", l.o.Socket); err != nil {
		t.Fatal(err)
	}
	l.look()
	l.look()
	if l.isReachable() || strings.Count(log.String(), l.o.Socket) == 0 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("while somebody else listens there: %s", log.String())
	}
	_ = other.Close()
	awaitSocket(t, l)
	attach(t, l, b, 1)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
