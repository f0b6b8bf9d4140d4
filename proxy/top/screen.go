package top

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tandem/proxy/metrics"
	"tandem/proxy/server"
)

// ANSI sequences. A new screen is drawn over the old one rather than after clearing it, which would flicker.
const (
	ansiHome, ansiClearLine, ansiClearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	ansiReset, ansiBold, ansiDim            = "\x1b[0m", "\x1b[1m", "\x1b[2m"
	ansiRed, ansiGreen                      = "\x1b[31m", "\x1b[32m"
)

// render writes a screen of at most 78 columns, apart from long names of models.
func (v *View) render(b *bytes.Buffer, l *server.LiveStatus) {
	engine := v.style(ansiGreen, "up")
	if l.EngineUp == 0 {
		engine = v.style(ansiRed, "DOWN")
	}
	f := &l.Figures
	fmt.Fprintf(b, "%s  %s, device %s, engine %s, restarts %.0f%s\n", v.style(ansiBold, "tandem "+v.url), l.Status, l.Device, engine, f.EngineRestarts, reasons(f.RestartReasons))
	fmt.Fprintf(b, "last %.0f s: waiting %d of %d, running %d, connections %d\n\n", float64(f.WindowSeconds), l.Waiting, l.QueueCapacity, l.Running, l.Connections)
	fmt.Fprintln(b, v.style(ansiBold, fmt.Sprintf("%-18s %12s  %-9s %s", "", "now", "target", "state")))
	for _, t := range l.Targets {
		fmt.Fprintf(b, "%-18s %12s  %-9s %s\n", t.Title, figure(t.Value, t.Unit), t.String(), v.state(t.State))
	}
	fmt.Fprintf(b, "\n%s\n", v.style(ansiBold, fmt.Sprintf("%-18s %12s %12s %12s %12s", "", "mean", "p50", "p95", "p99")))
	for _, row := range []struct {
		title string
		s     metrics.LatencySummary
	}{{"Response", f.Response}, {"First token", f.FirstToken}, {"Between tokens", f.InterToken}} {
		fmt.Fprintf(b, "%-18s %12s %12s %12s %12s\n", row.title, duration(row.s.Mean), duration(row.s.P50), duration(row.s.P95), duration(row.s.P99))
	}
	fmt.Fprintf(b, "\n%-18s queue %s, prefill %s, decode %s, restart %s\n", "Mean request", duration(f.Phases.Queue), duration(f.Phases.Prefill),
		duration(f.Phases.Decode), duration(f.Phases.Restart))
	fmt.Fprintf(b, "\n%s\n", v.style(ansiBold, fmt.Sprintf("Models: %d of at most %d loaded, %d installed", l.Loaded, l.CacheSize, l.Models)))
	for _, m := range l.LoadedModels {
		fmt.Fprintf(b, "  %s@%s%s%s\n", m.Model, m.Version, map[bool]string{true: ", loading"}[m.Loading], map[bool]string{true: ", default"}[m.Default])
	}
}

func (v *View) style(sequence, text string) string {
	if !v.styled {
		return text
	}
	return sequence + text + ansiReset
}

func (v *View) state(state string) string {
	switch state {
	case "met":
		return v.style(ansiGreen, state)
	case "missed":
		return v.style(ansiRed, "MISSED")
	}
	return v.style(ansiDim, state)
}

func reasons(counts map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %.0f", name, counts[name]))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// figure writes a number with a unit of server.Target.
func figure(n metrics.Number, unit string) string {
	switch {
	case !n.Known():
		return "-"
	case unit == "seconds":
		return duration(n)
	case unit == "ratio":
		return fmt.Sprintf("%.1f %%", 100*float64(n))
	}
	return fmt.Sprintf("%.1f /s", float64(n))
}

func duration(n metrics.Number) string {
	seconds := float64(n)
	switch {
	case !n.Known():
		return "-"
	case seconds >= 1:
		return fmt.Sprintf("%.2f s", seconds)
	case seconds >= 0.1:
		return fmt.Sprintf("%.0f ms", 1e3*seconds)
	}
	return fmt.Sprintf("%.2f ms", 1e3*seconds)
}
