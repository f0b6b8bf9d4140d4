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

	"tandem/scripts/await"
)

func TestSocketFile(t *testing.T) {
	h := newRecordingHandler()
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Socket: path, Handler: h}); err == nil {
		t.Fatal("a file that is no socket was replaced")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Socket: strings.Repeat("x", maxPathBytes+1), Handler: h}); err == nil {
		t.Error("a path that is too long was taken")
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	l := listen(t, Options{Socket: path, Handler: h})
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != socketMode || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	attached, _ := attach(t, l, h, 1)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, l)
	attached.stats(1) // the engine that was attached stays
	h.next(t, "stats")
	attach(t, l, h, 2)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 2 { // the other one is the lock
		t.Errorf("files left: %v", left)
	}
}

// awaitSocket waits until the path leads to the listener again, which checks once a second.
func awaitSocket(t *testing.T, l *Listener) {
	t.Helper()
	await.Until(t, 10*time.Second, "the socket is made again", l.isReachable)
}

func (l *Listener) isReachable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pathIsOurs()
}

// listenWithoutLock listens on a path as a program does that doesn't know the lock.
func listenWithoutLock(t *testing.T, path string) *net.UnixListener {
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
	l, err := Listen(Options{Socket: path, Handler: newRecordingHandler()})
	if err == nil {
		l.Close()
		t.Fatal("a second proxy took the socket")
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "ENGINE_SOCKET") {
		t.Errorf("the error doesn't say which socket and what to do: %v", err)
	}
}

func TestSecondProxyIsRefused(t *testing.T) {
	h := newRecordingHandler()
	path := socketPath(t)
	first, err := Listen(Options{Socket: path, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	checkRefused(t, path) // also before it serves
	first.Close()
	l := listen(t, Options{Socket: path, Handler: h}) // the file that it left doesn't matter
	checkRefused(t, path)
	attach(t, l, h, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, path)
}

func TestSocketOfSomebodyWithoutALockIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	ln := listenWithoutLock(t, path)
	checkRefused(t, path)
	_ = ln.Close()
	listen(t, Options{Socket: path, Handler: newRecordingHandler()})
}

func TestOneOfSeveralStartingProxiesListens(t *testing.T) {
	for range 20 {
		path := socketPath(t)
		var starting sync.WaitGroup
		began := make(chan struct{})
		won := make(chan *Listener, 8)
		for range cap(won) {
			starting.Go(func() {
				<-began
				if l, err := Listen(Options{Socket: path, Handler: newRecordingHandler()}); err == nil {
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

// After somebody else listened on the path, the first proxy gets its engines again once that one is gone.
func TestReplacedSocketIsMadeAgain(t *testing.T) {
	h := newRecordingHandler()
	var log lockedBuffer
	l := listen(t, Options{Handler: h, Log: slog.New(slog.NewTextHandler(&log, nil))})
	other := listenWithoutLock(t, l.options.Socket+".other")
	if err := os.Rename(l.options.Socket+".other", l.options.Socket); err != nil {
		t.Fatal(err)
	}
	l.restoreSocket()
	l.restoreSocket()
	if l.isReachable() || strings.Count(log.String(), l.options.Socket) == 0 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("while somebody else listens there: %s", log.String())
	}
	_ = other.Close()
	awaitSocket(t, l)
	attach(t, l, h, 1)
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
