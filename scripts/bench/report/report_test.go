package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBoundsOfRows(t *testing.T) {
	for _, c := range []struct {
		name string
		row  Row
		met  bool
	}{
		{"median of ratios, not ratio of medians", Row{Ours: []float64{1, 10, 30}, Theirs: []float64{1, 20, 20}, Required: Bound{AtLeast: 1}}, true},
		{"slower", Row{Ours: []float64{9}, Theirs: []float64{10}, Required: Bound{AtLeast: 1}}, false},
		{"a time", Row{Ours: []float64{5}, Theirs: []float64{20}, Required: Bound{AtMost: 0.25}}, true},
		{"too long", Row{Ours: []float64{5.1}, Theirs: []float64{20}, Required: Bound{AtMost: 0.25}}, false},
		{"of its own", Row{Ours: []float64{3, 4, 5}, Required: Bound{AtMost: 4, Alone: true}}, true},
		{"no peer", Row{Ours: []float64{3}, Required: Bound{AtMost: 4}}, false},
		{"nothing measured", Row{Required: Bound{AtMost: 4}}, false},
	} {
		if met := c.row.Met(); met != c.met {
			t.Errorf("%s: met %v", c.name, met)
		}
	}
}

// Rounds that differ so much that two ways to read them disagree decide nothing.
func TestRoundsThatDecideNothing(t *testing.T) {
	atLeast, alone := Bound{AtLeast: 1}, Bound{AtMost: 4, Alone: true}
	for _, c := range []struct {
		name string
		row  Row
		want string
	}{
		{"median of ratios 1.11, ratio of medians 0.91", Row{Ours: []float64{135, 134, 165}, Theirs: []float64{111, 172, 149}, Required: atLeast}, "unclear"},
		{"0.9 and 1.1", Row{Ours: []float64{9, 22, 11}, Theirs: []float64{10, 10, 20}, Required: atLeast}, "unclear"},
		{"both above", Row{Ours: []float64{12, 11, 13}, Theirs: []float64{10, 10, 10}, Required: atLeast}, "yes"},
		{"both below", Row{Ours: []float64{8, 9, 7}, Theirs: []float64{10, 10, 10}, Required: atLeast}, "**no**"},
		{"of its own", Row{Ours: []float64{3, 4, 50}, Required: alone}, "yes"},
		{"nothing asked", Row{Ours: []float64{135, 134, 165}, Theirs: []float64{111, 172, 149}}, ""},
	} {
		if got := c.row.verdict(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func sample() *Report {
	return &Report{Machine: "m", Model: "a <model>", Rows: []*Row{
		{Work: "w", Figure: "tokens/s", Peer: "llama-server", Ours: []float64{300}, Theirs: []float64{100}, Required: Bound{AtLeast: 1.5}},
		{Work: "w", Figure: "TTFT p99", Unit: "s", Peer: "llama-server", Ours: []float64{4.004}, Theirs: []float64{2}, LessIsBetter: true, Required: Bound{AtMost: 1}},
		{Work: "v", Figure: "alone", Unit: "ms", Ours: []float64{0.01234, 0.01234, 0.0124}},
	}}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	want := `| Work | Figure | Rounds | Tandem | Beside it | Ratio | Asked | Met |
|---|---|---|---|---|---|---|---|
| w | tokens/s | 1 | 300 | 100 (llama-server) | 3.00 | at least 1.5 | yes |
|  | TTFT p99 | 1 | 4.00 s | 2.00 s (llama-server) | 2.00 | at most 1 | **no** |
| v | alone | 3 | 0.0123 ms |  |  |  |  |
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestJSONHasEachRound(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got.Rows) != 3 || got.Rows[1].Theirs[0] != 2 {
		t.Errorf("%v %+v", err, got)
	}
}

// The picture is XML, and a row that is worse lies to the left.
func TestPicture(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WritePicture(&b); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.String(), "<rect"); n != 3 { // the ground and two rows with a peer
		t.Errorf("%d rectangles", n)
	}
	if place(0.5) >= place(1) || place(1) >= place(3) || place(1000) != place(mostTimes) {
		t.Error("wrong places")
	}
}
