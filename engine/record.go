package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	otel "go.opentelemetry.io/otel/trace"

	"tandem/engine/trace"
	tracing "tandem/schema/trace"
)

// flushTimeout is for the last spans, within what closing may take.
const flushTimeout = 2 * time.Second

// record is what is kept of requests: log lines, and with a collector spans. Its zero value is closed.
type record struct {
	recorder *trace.Recorder
	spans    *tracing.Exporter // nil without a collector
	stop     context.CancelFunc
	writing  sync.WaitGroup
}

// open starts to write down what the recorder is told.
func (r *record) open(c *Config, log *slog.Logger) error {
	var tracer otel.Tracer
	if c.TraceCollector != "" {
		var err error
		if r.spans, err = tracing.Open(context.Background(), tracing.Options{
			Endpoint: c.TraceCollector, Service: c.TraceService, Program: "engine", Version: version, Ratio: c.TraceRatio, Log: log,
		}); err != nil {
			return err
		}
		tracer = r.spans.Tracer()
	}
	r.recorder = trace.New(tracer, log, c.LogSample)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.writing.Go(func() { r.recorder.Run(ctx) })
	return nil
}

// close writes down what came last and sends it. A collector that is away is not a reason to end with an error.
func (r *record) close(ctx context.Context, log *slog.Logger) {
	if r.stop == nil {
		return
	}
	r.stop()
	r.writing.Wait()
	if r.spans == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.spans.Close(ctx); err != nil {
		log.Warn("spans are lost", "err", err)
	}
}
