package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// Limits for a collector that is slow or away. A span that finds the queue full is dropped; nothing ever waits for room
// in it.
const (
	queueSpans      = 2048
	batchSpans      = 512
	batchTimeout    = time.Second
	exportTimeout   = 10 * time.Second
	retryTimeout    = 30 * time.Second
	lossLogInterval = time.Minute // between two log lines about lost spans
)

// Options of Open.
type Options struct {
	Endpoint string  // base URL of the collector; spans go to /v1/traces below it
	Service  string  // service.name
	Program  string  // proxy or engine
	Version  string  // of the program
	Ratio    float64 // share of the traces begun here that are kept; for others the sender has decided
	Log      *slog.Logger
	// IDs makes the ids of spans; nil: random ones.
	IDs sdk.IDGenerator
}

// Exporter sends spans to a collector, by OTLP over HTTP.
type Exporter struct {
	provider *sdk.TracerProvider
	program  string
}

// Open prepares an exporter; nothing is sent before there is a span. Variables of the OpenTelemetry specification that
// aren't settings here, such as OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES, apply as well.
func Open(ctx context.Context, o Options) (*Exporter, error) {
	baseURL, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("collector %q: %w", o.Endpoint, err)
	}
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(baseURL.JoinPath("v1/traces").String()),
		otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: retryTimeout}))
	if err != nil {
		return nil, fmt.Errorf("prepare the way to the collector %s: %w", o.Endpoint, err)
	}
	res, err := processResource(ctx, o)
	if err != nil {
		return nil, err
	}
	options := []sdk.TracerProviderOption{
		sdk.WithResource(res),
		sdk.WithSampler(parentBasedSampler(o.Ratio)),
		sdk.WithBatcher(&lossLogger{SpanExporter: client, log: o.Log, now: time.Now}, sdk.WithMaxQueueSize(queueSpans),
			sdk.WithMaxExportBatchSize(batchSpans), sdk.WithBatchTimeout(batchTimeout), sdk.WithExportTimeout(retryTimeout+exportTimeout)),
	}
	if o.IDs != nil {
		options = append(options, sdk.WithIDGenerator(o.IDs))
	}
	return &Exporter{provider: sdk.NewTracerProvider(options...), program: o.Program}, nil
}

func parentBasedSampler(ratio float64) sdk.Sampler {
	return sdk.ParentBased(sdk.TraceIDRatioBased(ratio))
}

// processResource describes this process to the collector.
func processResource(ctx context.Context, o Options) (*resource.Resource, error) {
	var instance [8]byte
	_, _ = rand.Read(instance[:]) // never fails
	res, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", o.Service), attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", hex.EncodeToString(instance[:])),
		attribute.String("tandem.program", o.Program), attribute.Int("process.pid", os.Getpid())))
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe this process for traces: %w", err)
	}
	return res, nil
}

// Tracer makes the spans of this program.
func (e *Exporter) Tracer() otel.Tracer { return e.provider.Tracer("tandem/" + e.program) }

// Close sends what is still queued, as long as ctx allows.
func (e *Exporter) Close(ctx context.Context) error {
	if err := e.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// lossLogger logs that a collector doesn't take spans, at most once a minute.
type lossLogger struct {
	sdk.SpanExporter
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex
	loggedAt  time.Time
	lostSpans int // since the last log line
}

// ExportSpans implements sdk.SpanExporter. An error would only go to the SDK's global handler.
func (r *lossLogger) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lostSpans += len(spans)
	if now := r.now(); r.loggedAt.IsZero() || now.Sub(r.loggedAt) >= lossLogInterval {
		r.log.Warn("spans are lost: the collector doesn't take them", "spans", r.lostSpans, "error", err)
		r.loggedAt, r.lostSpans = now, 0
	}
	return nil
}
