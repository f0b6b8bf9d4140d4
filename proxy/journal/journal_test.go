package journal

import (
	"slices"
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestOpenKeepsTheBudget(t *testing.T) {
	j := New(100)
	a := j.Open(60)
	if a == nil {
		t.Fatal("60 of 100 bytes were refused")
	}
	if j.Open(41) != nil {
		t.Error("101 of 100 bytes were given")
	}
	b := j.Open(40)
	if b == nil {
		t.Fatal("the last 40 bytes were refused")
	}
	if j.ReservedBytes() != 100 || j.Len() != 2 {
		t.Errorf("%d bytes in %d records, want 100 in 2", j.ReservedBytes(), j.Len())
	}
	a.Close()
	a.Close()
	if j.ReservedBytes() != 40 || j.Len() != 1 {
		t.Errorf("after closing one: %d bytes in %d records, want 40 in 1", j.ReservedBytes(), j.Len())
	}
	b.Close()
	if j.ReservedBytes() != 0 || j.Len() != 0 {
		t.Errorf("after closing all: %d bytes in %d records", j.ReservedBytes(), j.Len())
	}
}

func TestEstimateCoversARequest(t *testing.T) {
	r := &api.Request{Prompt: strings.Repeat("x", 1000), System: "be brief", JSONSchema: []byte(`{"type":"object"}`)}
	estimate := EstimateBytes(r, 256)
	j := New(estimate)
	rec := j.Open(estimate)
	if rec == nil {
		t.Fatal("a request that just fits was refused")
	}
	rec.SetRendered(Rendered{PromptTokens: make([]int32, 1000), Grammar: "root ::= x"}, []byte("rev"), 256)
	for i := range 256 {
		rec.AddToken(int32(i), 8)
	}
	held := 4*(len(rec.PromptTokens)+len(rec.Generated)) + len(r.Prompt) + rec.TextBytes
	if j.ReservedBytes() != estimate || int64(held) > estimate {
		t.Errorf("reserved %d bytes, foreseen %d, held %d", j.ReservedBytes(), estimate, held)
	}
}

func TestRecordGrowsBeyondItsEstimate(t *testing.T) {
	j := New(10_000)
	rec := j.Open(5_000)
	rec.SetRendered(Rendered{PromptTokens: make([]int32, 10_000)}, nil, 100)
	if len(rec.PromptTokens) != 10_000 || j.ReservedBytes() < 40_000 {
		t.Errorf("%d tokens kept, %d bytes reserved", len(rec.PromptTokens), j.ReservedBytes())
	}
	if j.Open(1) != nil {
		t.Error("a new record was opened over the limit")
	}
	rec.Close()
	if j.ReservedBytes() != 0 {
		t.Errorf("%d bytes left over", j.ReservedBytes())
	}
}

func TestHeldTokens(t *testing.T) {
	rec := New(1 << 20).Open(100)
	for i, step := range []struct{ text, held int }{{3, 0}, {0, 1}, {0, 2}, {4, 0}, {1, 0}, {0, 1}} {
		if rec.AddToken(int32(i), step.text); rec.HeldTokens != step.held {
			t.Errorf("after token %d: %d held back, want %d", i, rec.HeldTokens, step.held)
		}
	}
}

func TestTokensAreKeptInOrder(t *testing.T) {
	rec := New(1 << 20).Open(100)
	rec.SetRendered(Rendered{PromptTokens: []int32{1, 2}, Grammar: "g", Stops: []string{"stop"}, ParserState: []byte("p")}, []byte("r"), 10)
	for i, text := range []string{"Pa", "", "ris."} {
		rec.AddToken(int32(i+7), len(text))
	}
	if !slices.Equal(rec.Generated, []int32{7, 8, 9}) || rec.TextBytes != 6 {
		t.Errorf("generated %v, %d bytes of text", rec.Generated, rec.TextBytes)
	}
	if rec.ReplayBytes() < 4*5 {
		t.Errorf("ReplayBytes = %d", rec.ReplayBytes())
	}
	again := New(1 << 20).Open(100)
	again.SetRendered(Rendered{PromptTokens: []int32{1}, Grammar: "g", Triggers: []Trigger{{Kind: 2, Value: "<call>"}}}, []byte("r"), 10)
	again.Reset()
	if again.Accepted || again.PromptTokens != nil || again.Triggers != nil || again.Revision != nil {
		t.Error("Reset left something of the old engine")
	}
}
