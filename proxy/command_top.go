package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"tandem/proxy/top"
)

// showTop shows the figures of a running server: once, or a new screen each second until ctx ends.
func showTop(ctx context.Context, inv invocation) error {
	c, err := loadConfigUnchecked(nil, inv.environ)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	url := flags.String("url", localURL(c), "")
	once := flags.Bool("once", false, "")
	if err := flags.Parse(inv.args); err != nil || flags.NArg() > 0 {
		return fmt.Errorf("top takes --url=URL and --once only: %w", errUsage)
	}
	terminal := isTerminal(inv.stdout)
	view := top.New(strings.TrimRight(*url, "/"), terminal && !slices.ContainsFunc(inv.environ, isNoColour))
	defer view.Close()
	if *once {
		return view.Once(ctx, inv.stdout)
	}
	return view.Follow(ctx, inv.stdout, terminal)
}

// isNoColour reports whether a variable is the one by which people ask all programs to leave colours out.
func isNoColour(variable string) bool {
	value, ok := strings.CutPrefix(variable, "NO_COLOR=")
	return ok && value != ""
}

// isTerminal reports whether screens may be drawn over each other.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
