package link

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"tandem/schema"
)

func TestAtMostTwoEngines(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	first, _ := attach(t, l, h, 1)
	attach(t, l, h, 2)
	third := connect(t, l.options.Socket)
	third.send(helloFrame(3))
	if reason := third.awaitClose(); !strings.Contains(reason, "2 engines") {
		t.Errorf("the third was told %q", reason)
	}
	_ = first.conn.Close()
	h.next(t, "lost")
	attach(t, l, h, 4)
}

func TestBadPeers(t *testing.T) {
	tests := []struct {
		name         string
		do           func(p *enginePeer)
		helloTimeout time.Duration
	}{
		{"no hello", func(p *enginePeer) { p.send(func(f schema.Frame) error { f.SetPing(); return nil }) }, 0},
		{"another protocol", func(p *enginePeer) {
			p.send(func(f schema.Frame) error {
				h, err := f.NewHello()
				if err != nil {
					return err
				}
				h.SetProtocol(900)
				h.SetMinProtocol(900)
				return nil
			})
		}, 0},
		{"silence", func(*enginePeer) {}, 500 * time.Millisecond}, // also of the engine that attaches afterwards
		{"garbage", func(p *enginePeer) { _, _ = p.raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }, 0},
		{"a huge frame", func(p *enginePeer) { _, _ = p.raw.Write([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newRecordingHandler()
			l := listen(t, Options{Handler: h, HelloTimeout: tt.helloTimeout})
			p := connect(t, l.options.Socket)
			tt.do(p)
			p.awaitClose()
			if len(h.calls) != 0 {
				t.Errorf("the handler was called with %v", (<-h.calls).what)
			}
			attach(t, l, h, 1) // others aren't disturbed
		})
	}
}

func TestGoAwayBothWays(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	p, _ := attach(t, l, h, 1)
	p.send(func(f schema.Frame) error { return f.SetGoAway("engine ends") })
	if loss := h.next(t, "lost").loss; loss.Reason != "goaway" {
		t.Errorf("lost for %q", loss.Reason)
	}
	p, _ = attach(t, l, h, 2)
	closed := make(chan struct{})
	go func() { defer close(closed); l.Close() }()
	if reason := p.awaitClose(); reason != "the proxy stops" {
		t.Errorf("told %q", reason)
	}
	<-closed
	h.next(t, "lost")
	if _, err := net.Dial("unix", l.options.Socket); err == nil {
		t.Error("still listening")
	}
	if _, err := os.Lstat(l.options.Socket); err != nil {
		t.Errorf("the socket's file must stay: %v", err)
	}
}
