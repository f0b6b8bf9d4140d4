package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema/wire"
	"tandem/scripts/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// linkTest is an engine from the executor to the link. The test takes the proxy's part.
type linkTest struct {
	t         *testing.T
	backend   *fakeBackend
	executor  *batch.Executor
	registry  *models.Registry
	cache     *models.Cache
	link      *Link
	listener  *net.UnixListener
	stopLink  context.CancelFunc
	linkEnded chan struct{}
}

func embeddedModel(t testing.TB, version string) models.EmbeddedFile {
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

func newLinkTest(t *testing.T, b *fakeBackend, change ...func(*batch.Options, *Options)) *linkTest {
	t.Helper()
	e := &linkTest{t: t, backend: b, linkEnded: make(chan struct{})}
	var err error
	e.registry, err = models.NewRegistry(models.RegistryOptions{Demo: &models.Demo{
		Name: "abc", Files: []models.EmbeddedFile{embeddedModel(t, ""), embeddedModel(t, "v1"), embeddedModel(t, "v2")},
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
		Hello:        Hello{Build: "1.2.3", Instance: 42, Device: "test"},
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
		Detach: e.executor.Detach,
		OnEvent: func(ev models.Event) {
			<-ready
			if ev.Kind == models.EventLoaded || ev.Kind == models.EventLoadFailed {
				time.Sleep(20 * time.Millisecond) // as a busy machine may deliver it: the answer would be there before
			}
			link.Event(ev)
		},
	})
	o.Models = e.cache
	link = New(o)
	close(ready)
	e.link = link
	ctx, stop := context.WithCancel(context.Background())
	e.stopLink = stop
	go func() { defer close(e.linkEnded); link.Run(ctx) }()
	t.Cleanup(e.close)
	return e
}

func (e *linkTest) close() {
	e.stopLink()
	<-e.linkEnded
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

// acceptConnection does what the proxy does: it accepts the engine's connection and exchanges hellos.
func (e *linkTest) acceptConnection() *fakeProxy {
	e.t.Helper()
	if err := e.listener.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	c, err := e.listener.Accept()
	if err != nil {
		e.t.Fatal(err)
	}
	p := &fakeProxy{t: e.t, conn: wire.New(c, wire.Options{}), frames: make(chan decodedFrame, 1<<14)}
	p.hello()
	p.reading.Go(p.read)
	e.t.Cleanup(p.close)
	if got := p.awaitKind("hello"); got.hello != 42 {
		e.t.Fatalf("hello of instance %d", got.hello)
	}
	return p
}

// awaitIdle waits until nothing is left of any request. Neither cache nor executor signals that.
func (e *linkTest) awaitIdle() {
	e.t.Helper()
	await.Until(e.t, 10*time.Second, "no leases and sequences are left", func() bool {
		busy := 0
		for _, entry := range e.cache.Entries() {
			busy += entry.Leases
		}
		for _, b := range e.executor.Stats() {
			busy += b.Waiting + b.Prefilling + b.Decoding
		}
		return busy == 0
	})
}
