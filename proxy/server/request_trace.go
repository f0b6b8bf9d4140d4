package server

import (
	"time"

	"tandem/proxy/trace"
)

// beginTrace begins the request's span and sets the traceresponse header. Several traceparent headers are ignored, as
// none of them can be trusted.
func (x *exchange) beginTrace(ownID bool) {
	a := trace.RequestStart{Route: x.route.path, RequestID: x.id, GeneratedID: ownID, Received: x.received, Scheme: "http"}
	if x.s.certs != nil {
		a.Scheme = "https"
	}
	h := &x.ctx.Request.Header
	if parents := h.PeekAll(traceparentHeader); len(parents) == 1 {
		a.Traceparent, a.Tracestate = string(parents[0]), string(h.Peek(tracestateHeader))
	}
	x.span = x.s.opts.Tracer.Begin(a)
	x.ctx.Response.Header.Set(traceresponseHeader, x.span.Traceparent())
}

func (x *exchange) endTrace(at time.Time) {
	end := trace.RequestEnd{Key: x.key, Status: x.status}
	if x.model != nil {
		end.Model, end.Version = x.model.Labels()
	}
	if x.accepted {
		end.Attempts = x.requeues + 1
	}
	if x.err != nil {
		end.ErrorType = string(x.err.Type)
	}
	x.span.End(at, end)
}
