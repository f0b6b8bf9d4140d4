// Package server is the proxy's face: it speaks HTTP with clients and talks to the request table behind it (package inflight) about inference. It
// routes, checks keys and limits, turns bytes into checked requests with package api, renders answers and streams, notices clients
// that leave, counts every exchange once at its end, and drains. It decides nothing about queues, engines or models.
//
//	accept ─ watch ─▶ route ─▶ key ─▶ limit ─▶ content type ─▶ decode ─▶ table ─▶ reply or stream ─▶ count, log
//
// Nothing of fasthttp's buffers is kept after a handler returns: whatever lives longer is copied first.
package server
