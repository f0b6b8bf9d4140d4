package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"tandem/proxy/metrics"
	"tandem/proxy/server"
)

const (
	topInterval = time.Second
	topTimeout  = 5 * time.Second // of one question
	topMaxBytes = 4 << 20         // of one reply
)

// ANSI sequences. Screens are drawn over each other rather than cleared, which would flicker.
const (
	ansiHome, ansiClearLine, ansiClearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	ansiReset, ansiBold, ansiDim            = "\x1b[0m", "\x1b[1m", "\x1b[2m"
	ansiRed, ansiGreen                      = "\x1b[31m", "\x1b[32m"
)

// top shows what /status/live of a running server says: once, or anew each second until ctx ends.
func top(ctx context.Context, p program) error {
	c, err := readConfig(nil, p.environ)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	url := flags.String("url", ownURL(c), "")
	once := flags.Bool("once", false, "")
	if err := flags.Parse(p.args); err != nil || flags.NArg() > 0 {
		return fmt.Errorf("top takes --url=URL and --once only: %w", errUsage)
	}
	view := topView{url: strings.TrimRight(*url, "/"), client: &http.Client{Timeout: topTimeout}, styled: isTerminal(p.stdout) && !slices.ContainsFunc(p.environ, noColour)}
	defer view.client.CloseIdleConnections()
	if *once {
		screen, err := view.screen(ctx)
		if err != nil {
			return err
		}
		_, err = p.stdout.Write(screen)
		return err
	}
	return view.follow(ctx, p.stdout, isTerminal(p.stdout))
}

// noColour is a variable by which people ask all programs to leave colours out.
func noColour(variable string) bool {
	value, ok := strings.CutPrefix(variable, "NO_COLOR=")
	return ok && value != ""
}

// isTerminal tells whether screens may be drawn over each other.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

type topView struct {
	url    string
	client *http.Client
	styled bool
}

// follow draws until ctx ends. In a pipe each screen follows the one before after an empty line. A server that is away is shown, since
// it may come back.
func (v *topView) follow(ctx context.Context, out io.Writer, terminal bool) error {
	tick := time.NewTicker(topInterval)
	defer tick.Stop()
	for {
		screen, err := v.screen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			screen = fmt.Appendf(nil, "%s\n", err)
		}
		if terminal {
			screen = overdraw(screen)
		} else {
			screen = append(screen, '\n')
		}
		if _, err := out.Write(screen); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func overdraw(screen []byte) []byte {
	lines := bytes.ReplaceAll(screen, []byte("\n"), []byte(ansiClearLine+"\n"))
	return slices.Concat([]byte(ansiHome), lines, []byte(ansiClearBelow))
}

func (v *topView) screen(ctx context.Context) ([]byte, error) {
	live, err := v.ask(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	v.render(&b, live)
	return b.Bytes(), nil
}

func (v *topView) ask(ctx context.Context) (*server.LiveStatus, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/status/live", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", v.url, err)
	}
	reply, err := v.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, topMaxBytes))
	if err != nil {
		return nil, fmt.Errorf("read figures of %s: %w", v.url, err)
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/status/live answers %s", v.url, reply.Status)
	}
	live := new(server.LiveStatus)
	if err := json.Unmarshal(body, live); err != nil {
		return nil, errors.Join(fmt.Errorf("%s/status/live isn't that of a tandem-proxy", v.url), err)
	}
	return live, nil
}

// render writes a screen of at most 78 columns, but for long names of models.
func (v *topView) render(b *bytes.Buffer, l *server.LiveStatus) {
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

func (v *topView) style(sequence, text string) string {
	if !v.styled {
		return text
	}
	return sequence + text + ansiReset
}

func (v *topView) state(state string) string {
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

// figure writes a number in a unit of server.Target.
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
