package link

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// lockedLog may be read while a program writes it.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Both programs are usually started at once, and a warning at each start would be read as a fault.
func TestAMissingSocketIsNoProblemWhileTheProxyMayStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		l := New(Options{
			Log:  slog.New(slog.NewTextHandler(&log, nil)),
			dial: func() (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ENOENT} },
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)

		time.Sleep(startGrace - time.Millisecond)
		synctest.Wait()
		if log.String() != "" {
			t.Errorf("%s after the start it says:\n%s", startGrace-time.Millisecond, &log)
		}
		time.Sleep(2 * lastRedial)
		synctest.Wait()
		if n := strings.Count(log.String(), "no connection to the proxy, trying again"); n != 1 {
			t.Errorf("told %d times, want once:\n%s", n, &log)
		}
	})
}

// Where somebody refuses the connection, waiting doesn't mend it: that is told at once.
func TestARefusedConnectionIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		l := New(Options{
			Log:  slog.New(slog.NewTextHandler(&log, nil)),
			dial: func() (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES} },
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)
		synctest.Wait()
		if !strings.Contains(log.String(), "no connection to the proxy, trying again") {
			t.Errorf("it says %q", &log)
		}
	})
}
