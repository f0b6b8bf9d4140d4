package trace

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	otel "go.opentelemetry.io/otel/trace"
)

const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParse(t *testing.T) {
	for header, want := range map[string]string{
		good:                                     good,
		good[:53] + "00":                         good[:53] + "00",
		good[:53] + "ff":                         good[:53] + "03", // flags that mean nothing yet aren't passed on
		"01" + good[2:]:                          good,
		"cc" + good[2:] + "-what-1":              good,
		"01" + good[2:] + "x":                    "",
		"ff" + good[2:]:                          "",
		good + "-":                               "",
		good[:54]:                                "",
		"":                                       "",
		" " + good:                               "",
		strings.ToUpper(good):                    "",
		strings.Replace(good, "-b7", "xb7", 1):   "",
		strings.Replace(good, "0af7", "0ag7", 1): "",
		"00-" + strings.Repeat("0", 32) + good[35:]:       "",
		good[:36] + strings.Repeat("0", 16) + good[52:55]: "",
	} {
		c, ok := Parse(header)
		if ok != (want != "") {
			t.Errorf("Parse(%q): %v", header, ok)
		} else if ok && (Format(c) != want || !c.IsRemote()) {
			t.Errorf("Parse(%q) became %s, want %s", header, Format(c), want)
		}
	}
}

// FuzzParse holds the parser to the one of OpenTelemetry, which also drops flags that mean nothing yet; the standard has them ignored.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{good, "01" + good[2:] + "-x", "ff" + good[2:], good[:54], "", good + good} {
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

func TestOneInSoManyIsChosen(t *testing.T) {
	const requests, n = 20_000, 10
	chosen := 0
	for i := range requests {
		id := fmt.Sprintf("request-%d", i)
		if Chosen(id, n) {
			chosen++
		}
		if !Chosen(id, 1) || !Chosen(id, 0) {
			t.Fatal("one in one isn't everybody")
		}
	}
	if want := requests / n; chosen < want*8/10 || chosen > want*12/10 {
		t.Errorf("%d of %d are chosen, want about %d", chosen, requests, want)
	}
}
