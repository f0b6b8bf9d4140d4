package main

import (
	"tandem/engine/metrics"
	"tandem/engine/supervise"
)

// tokenObserver counts what the executor does for the metrics and, of tokens and embeddings, for the heartbeat: an
// engine that gave one isn't in a crash loop.
type tokenObserver struct {
	*metrics.Metrics
	heartbeat *supervise.HeartbeatWriter
}

func (o *tokenObserver) Tokens(base, kind string, n int) {
	o.Metrics.Tokens(base, kind, n)
	if kind == "generated" && n > 0 {
		o.heartbeat.AddTokens(n)
	}
}

func (o *tokenObserver) Embedded(_ string, texts int) { o.heartbeat.AddTokens(texts) }
