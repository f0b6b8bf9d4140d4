package metrics

import (
	"fmt"
	"strings"

	"tandem/schema/catalogue"
)

// seriesName returns the name of a series: its family and label values in the catalogue's order. It panics when their
// number is wrong.
func seriesName(family string, labelValues ...string) string {
	c := catalogue.Find(family)
	if c == nil || len(c.Labels) != len(labelValues) {
		panic(fmt.Sprintf("metrics: %s with %d label values isn't in the catalogue", family, len(labelValues)))
	}
	var b strings.Builder
	b.WriteString(family)
	for i, l := range c.Labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(l.Name)
		b.WriteString(`="`)
		b.WriteString(labelEscaper.Replace(labelValues[i]))
		b.WriteByte('"')
	}
	if len(c.Labels) > 0 {
		b.WriteByte('}')
	}
	return b.String()
}

// labelEscaper escapes what the text format requires in label values; %q writes more escapes than its parsers know.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelValues returns the closed set of a label's values.
func labelValues(family, label string) []string {
	for _, l := range catalogue.Find(family).Labels {
		if l.Name == label {
			return l.Values
		}
	}
	return nil
}
