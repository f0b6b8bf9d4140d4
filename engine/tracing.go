package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	otel "go.opentelemetry.io/otel/trace"

	"tandem/engine/trace"
	otlp "tandem/schema/trace"
)

// spanFlushTimeout is for the last spans, within what closing may take.
const spanFlushTimeout = 2 * time.Second

// requestTracing writes a log line for each request and, with a collector, sends a span. Its zero value is closed.
type requestTracing struct {
	recorder *trace.Recorder
	exporter *otlp.Exporter // nil without a collector
	stop     context.CancelFunc
	writing  sync.WaitGroup
}

// open starts to write down what the recorder gets.
func (r *requestTracing) open(c *Config, log *slog.Logger) error {
	var tracer otel.Tracer
	if c.TraceCollector != "" {
		var err error
		if r.exporter, err = otlp.Open(context.Background(), otlp.Options{
			Endpoint: c.TraceCollector, Service: c.TraceService, Program: "engine", Version: version, Ratio: c.TraceRatio, Log: log,
		}); err != nil {
			return err
		}
		tracer = r.exporter.Tracer()
	}
	r.recorder = trace.New(tracer, log, c.LogSample)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.writing.Go(func() { r.recorder.Run(ctx) })
	return nil
}

// close writes down what came last and sends it. A collector that is away is not a reason to end with an error.
func (r *requestTracing) close(ctx context.Context, log *slog.Logger) {
	if r.stop == nil {
		return
	}
	r.stop()
	r.writing.Wait()
	if r.exporter == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, spanFlushTimeout)
	defer cancel()
	if err := r.exporter.Close(ctx); err != nil {
		log.Warn("spans are lost", "err", err)
	}
}
