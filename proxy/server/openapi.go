package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the document
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
)

const openAPIPath = "/openapi.json"

// openAPIDocument is what scripts/docs has written out of the descriptions, with the defaults of the settings.
//
//go:embed openapi/document.json
var openAPIDocument []byte

// addOpenAPIRoute adds the document of the endpoints, in which the settings of this server are told.
func (s *Server) addOpenAPIRoute() {
	document := compactJSON(s.adaptOpenAPI(openAPIDocument))
	sum := sha256.Sum256(document)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	s.addRoute(&route{path: openAPIPath, description: "all of this as an OpenAPI document", serve: func(x *exchange) { x.replyDocument(document, tag) }})
}

// IsTaken reports whether the metrics can't have a path, since it is that of another endpoint, all of which the
// document has, or of a file of the live page.
func IsTaken(path string) bool {
	isPath := func(f pageFile) bool { return f.path == path }
	described := bytes.Contains(openAPIDocument, fmt.Appendf(nil, "\n    %s: {", quoted(path)))
	return described && path != defaultMetricsPath || slices.ContainsFunc(pageFiles, isPath)
}

// adaptOpenAPI replaces the defaults that stand in the document, each at one place.
func (s *Server) adaptOpenAPI(document []byte) []byte {
	for _, r := range []struct{ before, old, new string }{
		{`"version": `, api.ServiceVersion, s.opts.Version},
		{`"name": `, defaultKeyHeader, s.opts.KeyHeader},
		{"\n    ", defaultMetricsPath, s.opts.MetricsPath},
	} {
		document = bytes.Replace(document, append([]byte(r.before), quoted(r.old)...), append([]byte(r.before), quoted(r.new)...), 1)
	}
	return document
}

func quoted(s string) []byte { return api.AppendString(nil, s) }

func compactJSON(text []byte) []byte {
	v := jsontext.Value(bytes.Clone(text))
	if v.Compact() != nil {
		return text
	}
	return v
}

// replyDocument answers with a document that doesn't change while the server runs.
func (x *exchange) replyDocument(document []byte, tag string) {
	h := &x.ctx.Response.Header
	h.Set(fasthttp.HeaderETag, tag)
	h.Set(fasthttp.HeaderCacheControl, "no-cache")
	if matchesTag(string(x.ctx.Request.Header.Peek(fasthttp.HeaderIfNoneMatch)), tag) {
		x.status = fasthttp.StatusNotModified
		x.ctx.SetStatusCode(x.status)
		return
	}
	x.reply(document)
}

// matchesTag reads If-None-Match: tags with commas between them, or a star.
func matchesTag(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == tag || one == "*" {
			return true
		}
	}
	return false
}
