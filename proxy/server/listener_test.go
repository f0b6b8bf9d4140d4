package server

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
)

// exhaustedListener can't accept a few times, as without a file descriptor left.
type exhaustedListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *exhaustedListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// Clients that hold more connections than there are file descriptors must not end the server.
func TestServerOutlivesTheLackOfFiles(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	ln, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	short := &exhaustedListener{Listener: ln}
	short.failures.Store(2)
	served := make(chan error, 1)
	server := ts.Server
	go func() { served <- server.ServeMetrics(short) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ts.send(c, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answered := make(chan *http.Response, 1)
	go func() {
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			answered <- response
		}
	}()
	select {
	case response := <-answered:
		if response.StatusCode != http.StatusOK {
			t.Errorf("status %d", response.StatusCode)
		}
	case err := <-served:
		t.Fatalf("the server ended: %v", err)
	}
	ts.shutdown()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}
