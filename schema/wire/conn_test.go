package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tandem/schema"
	"tandem/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets returns the two ends of a Unix socket.
func sockets(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// pair returns two connected Conns over a Unix socket.
func pair(t testing.TB, o wire.Options) (a, b *wire.Conn) {
	ca, cb := sockets(t)
	a, b = wire.New(ca, o), wire.New(cb, o)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func prompt(id uint64, text []byte) func(schema.Frame) error {
	return func(f schema.Frame) error {
		f.SetId(id)
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		return r.SetPrompt(text)
	}
}

func cancel(id uint64) func(schema.Frame) error {
	return func(f schema.Frame) error {
		f.SetId(id)
		f.SetCancel()
		return nil
	}
}

// readFrame returns what the tests need of the next frame.
func readFrame(t testing.TB, c *wire.Conn) (id uint64, which schema.Frame_Which, text []byte) {
	t.Helper()
	f, release, err := c.Read()
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	defer release()
	if f.Which() == schema.Frame_Which_infer {
		r, err := f.Infer()
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Prompt()
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.Clone(p)
	}
	return f.Id(), f.Which(), text
}

func TestPromptsOfAnySizePass(t *testing.T) {
	a, b := pair(t, wire.Options{})
	for id, size := range []int{0, 1, 100, 64 << 10, 1 << 20, 4 << 20, 3} {
		want := bytes.Repeat([]byte("pröömpt "), size/10+1)[:size]
		if err := a.Send(prompt(uint64(id), want)); err != nil {
			t.Fatalf("send %d bytes: %v", size, err)
		}
		gotID, _, got := readFrame(t, b)
		if gotID != uint64(id) || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got id %d and %d bytes", size, gotID, len(got))
		}
	}
	a.Close() // what was written is counted by then
	if a.BytesOut() < 5<<20 || a.BytesOut() != b.BytesIn() {
		t.Errorf("sent %d bytes, received %d", a.BytesOut(), b.BytesIn())
	}
}

func TestFrameOverTheLimitIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	a, b := pair(t, wire.Options{MaxFrameBytes: 64 << 10})
	if err := a.Send(prompt(1, make([]byte, 64<<10))); !errors.Is(err, wire.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	if err := a.Send(prompt(2, []byte("small"))); err != nil {
		t.Fatal(err)
	}
	if id, _, _ := readFrame(t, b); id != 2 {
		t.Errorf("got frame %d", id)
	}
}

func TestPeerThatClosesIsEOF(t *testing.T) {
	a, b := pair(t, wire.Options{})
	if err := a.Send(prompt(1, []byte("last words"))); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseAfterFlush(t.Context()); err != nil {
		t.Fatalf("close after flush: %v", err)
	}
	if err := a.Send(cancel(1)); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	if id, _, text := readFrame(t, b); id != 1 || string(text) != "last words" {
		t.Errorf("got %d %q", id, text)
	}
	if _, _, err := b.Read(); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	if err := b.Send(cancel(1)); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("send to a lost peer: %v", err)
	}
}

func TestControlOvertakesData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe() // without a buffer: nothing is written before it is read
		a, b := wire.New(ca, wire.Options{}), wire.New(cb, wire.Options{})
		defer a.Close()
		defer b.Close()
		big := make([]byte, 128<<10)
		for id := range uint64(8) {
			if err := a.Send(prompt(id+1, big)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // the flusher hangs in the first write
		if err := a.SendControl(cancel(99)); err != nil {
			t.Fatal(err)
		}
		var order []uint64
		for range 9 {
			id, _, _ := readFrame(t, b)
			order = append(order, id)
		}
		if order[0] != 1 || order[1] != 99 || order[8] != 8 {
			t.Errorf("frames came in order %v, want the control frame second", order)
		}
	})
}

func TestPeerThatTakesNothingCostsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		defer cb.Close()
		a := wire.New(ca, wire.Options{WriteTimeout: 3 * time.Second})
		defer a.Close()
		start := time.Now()
		if err := a.Send(prompt(1, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		_, _, err := a.Read()
		if err == nil || time.Since(start) != 6*time.Second {
			t.Errorf("read ended with %v after %v, want the write's 3 s and 3 s more for what the peer has sent", err, time.Since(start))
		}
		if err := a.Send(cancel(1)); !errors.Is(err, wire.ErrClosed) {
			t.Errorf("send afterwards: %v", err)
		}
	})
}

func TestFramesThatCameBeforeAFailedWriteAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		a := wire.New(ca, wire.Options{WriteTimeout: time.Second})
		defer a.Close()
		defer cb.Close()
		if err := a.Send(prompt(1, []byte("never taken"))); err != nil {
			t.Fatal(err)
		}
		<-a.Done() // the write has timed out
		b := wire.New(cb, wire.Options{})
		defer b.Close()
		if err := b.Send(cancel(42)); err != nil {
			t.Fatal(err)
		}
		if id, _, _ := readFrame(t, a); id != 42 {
			t.Errorf("got %d", id)
		}
	})
}

func TestHalfAFrameThenSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		defer cb.Close()
		b := wire.New(ca, wire.Options{FrameTimeout: 10 * time.Second})
		defer b.Close()
		go cb.Write([]byte{0, 0, 0, 0, 100, 0, 0, 0, 1, 2, 3})
		start := time.Now()
		_, _, err := b.Read()
		if err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("ended with %v after %v, want a timeout after 10 s", err, time.Since(start))
		}
	})
}

func TestSilenceBetweenFramesIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		a, b := wire.New(ca, wire.Options{}), wire.New(cb, wire.Options{})
		defer a.Close()
		defer b.Close()
		for id := range uint64(2) {
			time.AfterFunc(time.Hour, func() { a.Send(prompt(id, make([]byte, 100<<10))) })
			if got, _, _ := readFrame(t, b); got != id {
				t.Errorf("got %d", got)
			}
		}
		if err := b.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Read(); err == nil {
			t.Error("read past its deadline")
		}
	})
}

// countingFrame counts its releases.
type countingFrame struct {
	size     int
	built    *atomic.Int64
	released *atomic.Int64
}

func (c countingFrame) Size() int { return c.size }
func (c countingFrame) Build(f schema.Frame) error {
	c.built.Add(1)
	_, err := f.NewStep()
	return err
}
func (c countingFrame) Release() { c.released.Add(1) }

func TestBacklogFullClosesTheConnection(t *testing.T) {
	var built, released atomic.Int64
	ca, cb := net.Pipe()
	defer cb.Close()
	a := wire.New(ca, wire.Options{BacklogBytes: 10_000})
	defer a.Close()
	sent, err := 0, error(nil)
	for err == nil {
		err = a.SendLater(countingFrame{100, &built, &released})
		sent++
	}
	if !errors.Is(err, wire.ErrBacklogFull) || sent != 101 {
		t.Errorf("frame %d was refused with %v, want the 101st with ErrBacklogFull", sent, err)
	}
	if _, _, err := a.Read(); !errors.Is(err, wire.ErrBacklogFull) {
		t.Errorf("the reader learns %v", err)
	}
	a.Close()
	if released.Load() != int64(sent) {
		t.Errorf("%d of %d frames were released", released.Load(), sent)
	}
}

// A frame that its sender can do without leaves room for the others, however many of them there are.
func TestFrameWithoutRoomLeavesTheConnection(t *testing.T) {
	var built, released atomic.Int64
	ca, cb := net.Pipe()
	defer cb.Close()
	a := wire.New(ca, wire.Options{BacklogBytes: 10_000})
	defer a.Close()
	if err := a.SendIfRoom(reason(5000)); err != nil {
		t.Errorf("behind nothing: %v", err)
	}
	for range 100 {
		if err := a.SendIfRoom(reason(1000)); !errors.Is(err, wire.ErrNoRoom) {
			t.Fatalf("behind 5000 of 10,000 bytes: %v", err)
		}
	}
	if err := a.SendLater(countingFrame{4000, &built, &released}); err != nil {
		t.Errorf("another frame: %v", err)
	}
}

// reason makes a frame of about so many bytes.
func reason(bytes int) func(schema.Frame) error {
	return func(f schema.Frame) error { return f.SetGoAway(strings.Repeat("x", bytes)) }
}

func TestBacklogCountsOnlyWhatIsNotWritten(t *testing.T) {
	a, b := pair(t, wire.Options{BacklogBytes: 10_000})
	var built, released atomic.Int64
	for range 1000 {
		if err := a.SendLater(countingFrame{1000, &built, &released}); err != nil {
			t.Fatal(err)
		}
		if _, which, _ := readFrame(t, b); which != schema.Frame_Which_step {
			t.Fatalf("got %v", which)
		}
	}
	if built.Load() != 1000 {
		t.Errorf("built %d", built.Load())
	}
}

func TestCloseWhileSending(t *testing.T) {
	a, b := pair(t, wire.Options{})
	var built, released, sent atomic.Int64
	var wg sync.WaitGroup
	started := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if i == 10 {
					started <- struct{}{}
				}
				sent.Add(1)
				if a.SendLater(countingFrame{10, &built, &released}) != nil || a.Send(cancel(1)) != nil || a.SendControl(cancel(2)) != nil {
					return
				}
			}
		})
	}
	wg.Go(func() {
		for {
			if _, _, err := b.Read(); err != nil {
				return
			}
		}
	})
	for range 4 {
		<-started
	}
	if err := a.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	if sent.Load() != released.Load() {
		t.Errorf("sent %d, released %d", sent.Load(), released.Load())
	}
}

func TestCloseAfterFlushGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := net.Pipe()
		defer cb.Close()
		a := wire.New(ca, wire.Options{})
		if err := a.Send(cancel(1)); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := a.CloseAfterFlush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBuildErrorsAreTheSenders(t *testing.T) {
	a, b := pair(t, wire.Options{})
	oops := errors.New("oops")
	fail := func(schema.Frame) error { return oops }
	if err := a.Send(fail); !errors.Is(err, oops) {
		t.Errorf("send: %v", err)
	}
	if err := a.SendControl(fail); !errors.Is(err, oops) {
		t.Errorf("send control: %v", err)
	}
	if err := a.SendControl(cancel(5)); err != nil {
		t.Fatal(err)
	}
	if id, _, _ := readFrame(t, b); id != 5 {
		t.Errorf("got %d", id)
	}
}
