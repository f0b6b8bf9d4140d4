package link

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/schema/wire"
	"tandem/scripts/await"
)

// BenchmarkEmit measures what a step of 256 sequences costs the step loop, and what flusher and socket cost beside it.
func BenchmarkEmit(b *testing.B) {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, peer) // ends with the connection
	}()
	s := newSession(New(Options{}), wire.New(c, wire.Options{BacklogBytes: 1 << 30}))
	step := &batch.Step{Base: "demo", Duration: time.Millisecond}
	for id := range uint64(256) {
		step.Tokens = append(step.Tokens, batch.StepToken{ID: id, Attempt: 1, Index: 7, Token: 99, Text: []byte(" word"), TextEnd: 40})
	}
	b.ReportAllocs()
	inEmit := time.Duration(0)
	for range b.N {
		began := time.Now()
		if !s.Emit(step) {
			b.Fatal(s.conn.Err())
		}
		inEmit += time.Since(began)
		if s.conn.Backlog() > 4<<20 {
			await.Until(b, 10*time.Second, "the flusher has caught up", func() bool { return s.conn.Backlog() <= 4<<20 })
		}
	}
	b.ReportMetric(float64(inEmit.Nanoseconds())/float64(256*b.N), "emit-ns/token")
	s.conn.Close()
	peer.Close()
	<-gone
}
