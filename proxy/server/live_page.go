package server

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// pagePolicy keeps the page to this host: its own scripts and styles, requests to itself, and nobody may frame it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageFile is a file of the live page, which is embedded in builds that had it built before.
type pageFile struct {
	path        string
	name        string
	contentType string
}

var pageFiles = []pageFile{
	{"/page/app.js", "app.js", "text/javascript; charset=utf-8"},
	{"/page/app.css", "app.css", "text/css; charset=utf-8"},
	{"/page/icon.svg", "icon.svg", "image/svg+xml"},
}

// addLivePageRoutes adds / and the files that the page needs. They count as one endpoint.
func (s *Server) addLivePageRoutes() {
	if s.opts.DisablePage {
		return
	}
	index := pageContent("index.html")
	if index == nil {
		s.addRoute(&route{path: "/", description: "this table", serve: s.routeTable})
		return
	}
	s.addRoute(&route{path: "/", description: "the live page in a browser, otherwise this table", serve: func(x *exchange) { s.index(x, index) }})
	for _, f := range pageFiles {
		content := pageContent(f.name)
		r := &route{path: f.path, description: "part of the live page", dialect: defaultDialect, serve: func(x *exchange) { sendFile(x, f.contentType, content) }}
		r.metrics = s.routes["/"].metrics
		s.routes[r.path] = r
	}
}

// index serves the page to browsers and the table of routes to everybody else.
func (s *Server) index(x *exchange, page []byte) {
	x.ctx.Response.Header.Add(fasthttp.HeaderVary, fasthttp.HeaderAccept)
	if !bytes.Contains(x.ctx.Request.Header.Peek(fasthttp.HeaderAccept), []byte("text/html")) {
		s.routeTable(x)
		return
	}
	sendFile(x, "text/html; charset=utf-8", page)
}

func sendFile(x *exchange, contentType string, content []byte) {
	h := &x.ctx.Response.Header
	h.SetContentType(contentType)
	h.Set(fasthttp.HeaderContentSecurityPolicy, pagePolicy)
	h.Set(fasthttp.HeaderXContentTypeOptions, "nosniff")
	h.Set(fasthttp.HeaderReferrerPolicy, "no-referrer")
	h.Set(fasthttp.HeaderCacheControl, "no-cache")
	x.ctx.Response.SetBodyRaw(content)
}
