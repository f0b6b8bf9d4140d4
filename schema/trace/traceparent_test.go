package trace

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	otel "go.opentelemetry.io/otel/trace"
)

const validTraceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParse(t *testing.T) {
	for header, want := range map[string]string{
		validTraceparent:             validTraceparent,
		validTraceparent[:53] + "00": validTraceparent[:53] + "00",
		// flags that mean nothing yet aren't passed on
		validTraceparent[:53] + "ff":                            validTraceparent[:53] + "03",
		"01" + validTraceparent[2:]:                             validTraceparent,
		"cc" + validTraceparent[2:] + "-what-1":                 validTraceparent,
		"01" + validTraceparent[2:] + "x":                       "",
		"ff" + validTraceparent[2:]:                             "",
		validTraceparent + "-":                                  "",
		validTraceparent[:54]:                                   "",
		"":                                                      "",
		" " + validTraceparent:                                  "",
		strings.ToUpper(validTraceparent):                       "",
		strings.Replace(validTraceparent, "-b7", "xb7", 1):      "",
		strings.Replace(validTraceparent, "0af7", "0ag7", 1):    "",
		"00-" + strings.Repeat("0", 32) + validTraceparent[35:]: "",
		validTraceparent[:36] + strings.Repeat("0", 16) + validTraceparent[52:55]: "",
	} {
		c, ok := Parse(header)
		if ok != (want != "") {
			t.Errorf("Parse(%q): %v", header, ok)
		} else if ok && (Format(c) != want || !c.IsRemote()) {
			t.Errorf("Parse(%q) became %s, want %s", header, Format(c), want)
		}
	}
}

// FuzzParse holds the parser to the one of OpenTelemetry, which also drops flags that mean nothing yet; the standard
// has them ignored.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{validTraceparent, "01" + validTraceparent[2:] + "-x", "ff" + validTraceparent[2:], validTraceparent[:54], "", validTraceparent + validTraceparent} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, ok := Parse(header)
		theirs := otel.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": header}))
		if !ok {
			if theirs.IsValid() {
				t.Fatalf("%q is dropped, and OpenTelemetry takes it", header)
			}
			return
		}
		if back, again := Parse(Format(c)); !again || !back.Equal(c) {
			t.Fatalf("%q became %s, which doesn't come back", header, Format(c))
		}
		if header[53] != '0' || header[54] > '3' {
			return
		}
		if !theirs.IsValid() {
			t.Fatalf("%q is taken, and OpenTelemetry drops it", header)
		}
		if c.TraceID() != theirs.TraceID() || c.SpanID() != theirs.SpanID() || c.IsSampled() != theirs.IsSampled() {
			t.Fatalf("%q became %s, OpenTelemetry makes it %v", header, Format(c), theirs)
		}
	})
}
