// Package server is the proxy's HTTP server. It routes, checks keys and rate limits, turns bytes into checked requests
// with package api, passes inference requests to the request table (package inflight), writes answers and streams,
// notices clients that disconnect, counts every exchange once at its end, and drains. It decides nothing about queues,
// engines or models.
//
//	accept ─▶ route ─▶ key ─▶ rate limit ─▶ content type ─▶ decode ─▶ request table ─▶ reply or stream ─▶ count, log
//
// Nothing points into fasthttp's buffers after a handler returns: what lives longer is copied first.
package server
