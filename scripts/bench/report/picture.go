package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	rowHeight  = 26
	labelWidth = 560
	barsWidth  = 330
	topHeight  = 54
	margin     = 10
)

// mostTimes is the ratio at which a bar ends; a longer one is cut there and its figure tells.
const mostTimes = 16

// WritePicture draws how many times better than its peer each row with a peer is, as bars on a logarithmic scale. A bar
// to the left of the middle line is worse.
func (r *Report) WritePicture(w io.Writer) error {
	var b strings.Builder
	rows := r.compared()
	width, height := labelWidth+barsWidth+margin, topHeight+rowHeight*len(rows)+margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	text(&b, margin, 20, "start", "Tandem beside llama-server (unpatched), or what a row names, times better; "+r.Model)
	middle := labelWidth + barsWidth/2
	for times := 1.0 / mostTimes; times <= mostTimes; times *= 4 {
		x := place(times)
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#d0d0d0"/>`+"\n", x, topHeight-6, x, height-margin)
		text(&b, x, topHeight-12, "middle", timesLabel(times))
	}
	for i, row := range rows {
		y := topHeight + rowHeight*i
		times := row.timesBetter()
		end, colour := place(times), "#2a7f62"
		if times < 1 {
			colour = "#b5523b"
		}
		text(&b, labelWidth-margin, y+17, "end", row.Work+": "+row.Figure)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", min(middle, end), y+4, max(abs(end-middle), 1), rowHeight-8, colour)
		text(&b, max(middle, end)+4, y+17, "start", number(times))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) compared() []*Row {
	var list []*Row
	for _, row := range r.Rows {
		if !math.IsNaN(row.Ratio()) && row.Ratio() > 0 {
			list = append(list, row)
		}
	}
	return list
}

func (r *Row) timesBetter() float64 {
	if r.LessIsBetter {
		return 1 / r.Ratio()
	}
	return r.Ratio()
}

// place is the x of a ratio.
func place(times float64) int {
	most := math.Log(mostTimes)
	at := math.Log(times) / most
	return labelWidth + barsWidth/2 + int(math.Round(min(max(at, -1), 1)*(barsWidth/2-40)))
}

func timesLabel(times float64) string {
	if times < 1 {
		return fmt.Sprintf("1/%g", 1/times)
	}
	return fmt.Sprintf("%g", times)
}

func text(b *strings.Builder, x, y int, anchor, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
}

func abs(n int) int { return max(n, -n) }
