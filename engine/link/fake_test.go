package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	contextTokens = 512
	endToken      = batch.Token(0)
)

// backend loads bases that spell the alphabet. A prompt "end 5" gives five letters and then the end; others go on until they are cut.
type backend struct {
	loading chan struct{} // not nil: a load waits for it
	fails   map[string]models.Reason
	render  chan struct{} // not nil: a rendering waits for it
	entered chan struct{} // gets a value for every rendering that begins
}

func (b *backend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	progress(models.Progress{Phase: "weights", Ratio: 0.5})
	if b.loading != nil {
		select {
		case <-b.loading:
		case <-ctx.Done():
			return nil, &models.LoadError{Reason: models.ReasonOther, What: spec.Name, Err: context.Cause(ctx)}
		}
	}
	if reason, ok := b.fails[spec.Name]; ok {
		return nil, &models.LoadError{Reason: reason, What: spec.Name, Err: errors.New("told to fail")}
	}
	return &base{b: b, ends: make(map[int]int)}, nil
}

type base struct {
	b    *backend
	ends map[int]int // by sequence; of the executor's goroutine
}

type adapter struct{ name string }

func (a adapter) Name() string { return a.name }
func (adapter) Bytes() int64   { return 7 }
func (adapter) Close() error   { return nil }

func (*base) Facts() models.Facts {
	return models.Facts{Architecture: "alphabet", ContextTokens: contextTokens, Cells: 1 << 20, Sequences: 64, Backend: "test"}
}

func (*base) LoadAdapter(_ context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	return adapter{spec.Name}, nil
}

func (b *base) Render(ctx context.Context, in models.Input) (models.Prompt, error) {
	select {
	case b.b.entered <- struct{}{}:
	default:
	}
	if b.b.render != nil {
		select {
		case <-b.b.render:
		case <-ctx.Done():
			return models.Prompt{}, context.Cause(ctx)
		}
	}
	if len(in.JSONSchema) > 0 {
		return models.Prompt{}, errors.New("schema isn't supported")
	}
	tokens := make([]int32, 0, len(in.Prompt))
	for _, c := range []byte(in.Prompt) {
		tokens = append(tokens, int32(c))
	}
	if len(tokens) > in.MaxTokens {
		return models.Prompt{}, models.ErrPromptTooLong
	}
	return models.Prompt{Tokens: tokens, Stops: []string{"§"}}, nil
}

func (*base) Close() error { return nil }

func (*base) Limits() batch.Limits {
	return batch.Limits{Cells: 1 << 20, Sequences: 64, SequenceMax: contextTokens, StepTokens: 1024, Prefix: true}
}

// Step draws letters: the token at index i is the letter i, whatever was before.
func (b *base) Step(_ batch.Adapter, slices []batch.Slice) error {
	for i := range slices {
		s := &slices[i]
		if d, ok := s.Sampler.(*drawer); ok {
			s.Draw = batch.Draw{Token: d.at(s.Index), Margin: 1}
		}
	}
	return nil
}

func (*base) Truncate(int, int) bool        { return true }
func (*base) CopyPrefix(int, int, int) bool { return true }
func (*base) Piece(t batch.Token) []byte {
	if t == endToken {
		return nil
	}
	return []byte{byte(t)}
}
func (*base) IsEnd(t batch.Token) bool { return t == endToken }

func (*base) NewSampler(_ batch.Sampling, prompt, _ []batch.Token) (batch.Sampler, error) {
	d := &drawer{end: contextTokens}
	var text strings.Builder
	for _, t := range prompt {
		text.WriteByte(byte(t))
	}
	if n, ok := strings.CutPrefix(text.String(), "end "); ok {
		d.end = int(n[0] - '0')
	}
	return d, nil
}

type drawer struct{ end int }

func (d *drawer) at(i int) batch.Token {
	if i >= d.end {
		return endToken
	}
	return batch.Token('a' + i%26)
}
func (*drawer) Constrained() bool                    { return false }
func (*drawer) Advance(int) ([]batch.Token, error)   { return nil, nil }
func (d *drawer) Draw(index int) (batch.Draw, error) { return batch.Draw{Token: d.at(index)}, nil }
func (*drawer) Accept(batch.Token) error             { return nil }
func (*drawer) Close()                               {}

// bench is an engine from the executor to the link, with the proxy's end played by the test.
type bench struct {
	t        *testing.T
	backend  *backend
	executor *batch.Executor
	registry *models.Registry
	cache    *models.Cache
	link     *Link
	listener *net.UnixListener
	stop     context.CancelFunc
	ended    chan struct{}
}

func embedded(t testing.TB, version string) models.EmbeddedFile {
	content := []byte("weights of " + version)
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return models.EmbeddedFile{Version: version, Packed: packed.Bytes(), SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))}
}

func newBench(t *testing.T, b *backend, change ...func(*batch.Options, *Options)) *bench {
	t.Helper()
	e := &bench{t: t, backend: b, ended: make(chan struct{})}
	var err error
	e.registry, err = models.NewRegistry(models.RegistryOptions{Demo: &models.Demo{
		Name: "abc", Files: []models.EmbeddedFile{embedded(t, ""), embedded(t, "v1"), embedded(t, "v2")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	if e.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket}); err != nil {
		t.Fatal(err)
	}
	slow := batch.Options{StepDelay: 100 * time.Microsecond}
	o := Options{
		Socket: socket, Catalog: e.registry, DefaultVersion: "v1",
		Identity:     Identity{Build: "1.2.3", Instance: 42, Device: "test"},
		WriteMetrics: func(w io.Writer) { io.WriteString(w, "some_metric 1\n") },
	}
	for _, c := range change {
		c(&slow, &o)
	}
	e.executor = batch.NewExecutor(slow)
	o.Executor = e.executor
	var link *Link
	ready := make(chan struct{})
	e.cache = models.NewCache(models.CacheOptions{
		Registry: e.registry, Backend: b, Dir: t.TempDir(), Size: 3,
		Attach: func(ctx context.Context, key string, b models.Base) error {
			return e.executor.Attach(ctx, key, b.(batch.Runner))
		},
		Detach:  e.executor.Detach,
		OnEvent: func(ev models.Event) { <-ready; link.Event(ev) },
	})
	o.Models = e.cache
	link = New(o)
	close(ready)
	e.link = link
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go func() { defer close(e.ended); link.Run(ctx) }()
	t.Cleanup(e.close)
	return e
}

func (e *bench) close() {
	e.stop()
	<-e.ended
	e.listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.cache.Close(ctx); err != nil {
		e.t.Errorf("close cache: %v", err)
	}
	if err := e.executor.Close(ctx); err != nil {
		e.t.Errorf("close executor: %v", err)
	}
}

// accept plays the proxy: it takes the engine's connection and exchanges hellos.
func (e *bench) accept() *proxy {
	e.t.Helper()
	if err := e.listener.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	c, err := e.listener.Accept()
	if err != nil {
		e.t.Fatal(err)
	}
	p := &proxy{t: e.t, conn: wire.New(c, wire.Options{}), frames: make(chan frame, 1<<14)}
	p.hello()
	p.reading.Go(p.read)
	e.t.Cleanup(p.close)
	if got := p.next("hello"); got.hello != 42 {
		e.t.Fatalf("hello of instance %d", got.hello)
	}
	return p
}

// idle waits until nothing is left of any request.
func (e *bench) idle() {
	e.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		busy := 0
		for _, entry := range e.cache.Entries() {
			busy += entry.Leases
		}
		for _, b := range e.executor.Stats() {
			busy += b.Waiting + b.Prefilling + b.Decoding
		}
		if busy == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%d leases and sequences are left", busy)
		}
		time.Sleep(time.Millisecond) // neither tells when it is idle
	}
}
