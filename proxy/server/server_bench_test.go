package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// The server of a benchmark is a process of its own, so that its CPU time can be distinguished from the load's. It is
// this test program again.
const benchServerEnv = "TANDEM_BENCH_SERVER"

// TestBenchServer is not a test: it serves for the benchmarks below until its standard input ends.
func TestBenchServer(t *testing.T) {
	kind := os.Getenv(benchServerEnv)
	if kind == "" {
		t.Skip("serves for benchmarks")
	}
	if kind == "bare" {
		serveBare(t)
		return
	}
	table := instantTable()
	if kind == "stream" {
		table.admit = tokenEachMillisecond(t.Context())
	}
	ts := startTestServer(t, table, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(io.Discard, nil)) })
	reportCPU(t, ts.address)
}

// serveBare is fasthttp with a constant answer: what sockets and HTTP cost on this machine at this moment.
func serveBare(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bare := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString(inferBody) }}
	go func() { _ = bare.Serve(ln) }()
	reportCPU(t, ln.Addr().String())
	_ = bare.Shutdown()
}

// reportCPU says where the server is, and its CPU time for every line on standard input.
func reportCPU(t *testing.T, address string) {
	fmt.Println("listening", address)
	input := bufio.NewReader(os.Stdin)
	for {
		if _, err := input.ReadString('\n'); err != nil {
			return
		}
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			t.Fatal(err)
		}
		fmt.Println("cpu", time.Duration(used.Utime.Nano()+used.Stime.Nano()))
	}
}

// tokenEachMillisecond adds a token to every answer in flight each millisecond, from one goroutine, as an engine's
// steps arrive.
func tokenEachMillisecond(ctx context.Context) func(inflight.Request) (inflight.Answer, *api.Error) {
	var mu sync.Mutex
	left := make(map[*fakeAnswer]int)
	go func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			<-ticker.C
			mu.Lock()
			for a, n := range left {
				if left[a] = n - 1; n == 0 {
					a.end(*a.request.Infer.MaxNewTokens)
					delete(left, a)
					continue
				}
				a.addText(" token")
			}
			mu.Unlock()
		}
	}()
	return func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := newAnswer(r)
		mu.Lock()
		left[a] = *r.Infer.MaxNewTokens
		mu.Unlock()
		return a, nil
	}
}

// benchServer is the other process.
type benchServer struct {
	b       *testing.B
	address string
	in      io.WriteCloser
	out     *bufio.Reader
}

func startBenchServer(b *testing.B, kind string) *benchServer {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchServer$")
	cmd.Env = append(os.Environ(), benchServerEnv+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &benchServer{b: b, in: in, out: bufio.NewReader(out)}
	s.address = s.line("listening ")
	b.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, s.out)
		_ = cmd.Wait()
	})
	return s
}

func (s *benchServer) line(prefix string) string {
	s.b.Helper()
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.b.Fatal(err)
		}
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

func (s *benchServer) cpu() time.Duration {
	s.b.Helper()
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		s.b.Fatal(err)
	}
	used, err := time.ParseDuration(s.line("cpu "))
	if err != nil {
		s.b.Fatal(err)
	}
	return used
}

// load runs n requests over connections and returns the CPU time that the server took.
func (s *benchServer) load(connections, n int, request string) time.Duration {
	jobs := make(chan struct{}, n)
	for range n {
		jobs <- struct{}{}
	}
	close(jobs)
	before := s.cpu()
	var done sync.WaitGroup
	for range connections {
		done.Go(func() {
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				s.b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for range jobs {
				if err := exchangeOnce(c, r, request); err != nil {
					s.b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	return s.cpu() - before
}

func exchangeOnce(c net.Conn, r *bufio.Reader, request string) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// BenchmarkUnary reports the CPU time of the proxy for a request at 64 connections, with a request table that answers
// at once.
func BenchmarkUnary(b *testing.B) { benchUnary(b, "instant") }

// BenchmarkBare is the same with an HTTP server that does nothing.
func BenchmarkBare(b *testing.B) { benchUnary(b, "bare") }

func benchUnary(b *testing.B, kind string) {
	s := startBenchServer(b, kind)
	s.load(64, 2000, rawInfer(inferBody, "HTTP/1.1"))
	b.ResetTimer()
	used := s.load(64, b.N, rawInfer(inferBody, "HTTP/1.1"))
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/request")
}

// tokensPerStream is how many tokens each stream of the benchmarks gets.
const tokensPerStream = 200

// BenchmarkStream reports the CPU time of the proxy for an event, over 64 streams that get a token each millisecond.
func BenchmarkStream(b *testing.B) {
	benchStream(b, rawInfer(strings.Replace(streamed(inferBody), ":32", ":"+strconv.Itoa(tokensPerStream), 1), "HTTP/1.1"))
}

// BenchmarkDialectStream is the same with the longer events of other APIs.
func BenchmarkDialectStream(b *testing.B) {
	tokens := strconv.Itoa(tokensPerStream)
	for path, body := range map[string]string{
		"/v1/chat/completions": strings.TrimSuffix(streamed(openAIEndpoints[0].body), "}") + `,"max_tokens":` + tokens + "}",
		"/v1/responses":        strings.TrimSuffix(streamed(responsesBody), "}") + `,"max_output_tokens":` + tokens + "}",
		"/v1/messages":         strings.Replace(streamed(messagesBody), `"max_tokens":32`, `"max_tokens":`+tokens, 1),
	} {
		b.Run(path, func(b *testing.B) { benchStream(b, strings.Replace(rawInfer(body, "HTTP/1.1"), "/infer", path, 1)) })
	}
}

func benchStream(b *testing.B, request string) {
	const tokens, streams = tokensPerStream, 64
	s := startBenchServer(b, "stream")
	n := max(1, b.N/tokens)
	b.ResetTimer()
	used := s.load(streams, n, request)
	b.ReportMetric(float64(used.Microseconds())/float64(n*tokens), "cpu-µs/event")
}
