// Package report collects the figures of a comparison and writes them as a table, as JSON and as a picture. It computes
// medians and ratios and nothing else: what was measured, and how, is the caller's affair.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"tandem/scripts/bench/load"
)

// Bound is what is asked of a row.
type Bound struct {
	AtLeast, AtMost float64 // 0: no bound
	Alone           bool    // of our own figure; otherwise of the ratio
}

// Row is one figure of one piece of work, with a value for each round.
type Row struct {
	Scenario string    `json:"scenario"`
	Work     string    `json:"work"`
	Figure   string    `json:"figure"`
	Unit     string    `json:"unit"`
	Peer     string    `json:"peer,omitempty"`
	Ours     []float64 `json:"tandem"`
	Theirs   []float64 `json:"peer_values,omitempty"`
	Required Bound     `json:"-"`
	// LessIsBetter: a time, for example
	LessIsBetter bool `json:"less_is_better,omitempty"`
}

// Ratio is ours to theirs, the median of the rounds' own ratios; NaN without a peer.
func (r *Row) Ratio() float64 {
	var ratios []float64
	for i := range min(len(r.Ours), len(r.Theirs)) {
		ratios = append(ratios, r.Ours[i]/r.Theirs[i])
	}
	return load.Median(ratios)
}

// Decisive is what the bound holds for.
func (r *Row) Decisive() float64 {
	if r.Required.Alone {
		return load.Median(r.Ours)
	}
	return r.Ratio()
}

// Met reports whether the row keeps its bound.
func (r *Row) Met() bool { return r.Required.holds(r.Decisive()) }

// Unclear reports whether the ratio of the medians says something else of the bound than the median of the ratios: then
// the rounds differ too much for either.
func (r *Row) Unclear() bool {
	if r.Required.Alone || r.Required == (Bound{}) || len(r.Theirs) == 0 {
		return false
	}
	return r.Required.holds(load.Median(r.Ours)/load.Median(r.Theirs)) != r.Met()
}

func (b Bound) holds(v float64) bool {
	if math.IsNaN(v) {
		return false
	}
	return (b.AtLeast == 0 || v >= b.AtLeast) && (b.AtMost == 0 || v <= b.AtMost)
}

func (b Bound) String() string {
	switch {
	case b.AtLeast != 0:
		return fmt.Sprintf("at least %g", b.AtLeast)
	case b.AtMost != 0:
		return fmt.Sprintf("at most %g", b.AtMost)
	}
	return ""
}

// Report is all rows of a run, and where it ran.
type Report struct {
	Machine  string   `json:"machine"`
	Date     string   `json:"date"`
	Revision string   `json:"revision"`
	Model    string   `json:"model"`
	Command  string   `json:"command"`
	Notes    []string `json:"notes,omitempty"`
	Rows     []*Row   `json:"rows"`
}

// WriteMarkdown writes the rows as a table.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "| Work | Figure | Rounds | Tandem | Beside it | Ratio | Asked | Met |\n|---|---|---|---|---|---|---|---|\n")
	work := ""
	for _, row := range r.Rows {
		shown := row.Work
		if shown == work {
			shown = ""
		}
		work = row.Work
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %s | %s | %s |\n", shown, row.Figure, len(row.Ours), row.value(row.Ours), row.theirs(),
			number(row.Ratio()), row.Required, row.verdict())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Row) value(values []float64) string {
	if len(values) == 0 {
		return ""
	}
	return strings.TrimSpace(number(load.Median(values)) + " " + r.Unit)
}

func (r *Row) theirs() string {
	if len(r.Theirs) == 0 {
		return ""
	}
	return r.value(r.Theirs) + " (" + r.Peer + ")"
}

func (r *Row) verdict() string {
	switch {
	case r.Required == Bound{}, math.IsNaN(r.Decisive()):
		return ""
	case r.Unclear():
		return "unclear"
	case r.Met():
		return "yes"
	}
	return "**no**"
}

// number shows three digits that count.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return ""
	case math.Abs(v) >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	case math.Abs(v) >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// String is the row as a line of progress.
func (r *Row) String() string {
	line := fmt.Sprintf("%s, %s: %s", r.Work, r.Figure, r.value(r.Ours))
	if len(r.Theirs) > 0 {
		line += fmt.Sprintf(", %s, ratio %s", r.theirs(), number(r.Ratio()))
	}
	if v := r.verdict(); v != "" {
		line += fmt.Sprintf(" (asked: %s; met: %s)", r.Required, strings.Trim(v, "*"))
	}
	return line
}

// WriteJSON writes everything, with the value of each round.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
