// Tandem-proxy takes inference requests over HTTP and passes them to the engine over a Unix socket. It holds the
// clients' connections, the keys, the rate limits, the queue, the tokens received so far of each answer, and every
// documented metric, so that the engine may be restarted at any moment. This package has only the commands and the
// wiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"tandem/schema/settings"
)

// Set by the linker.
var (
	version  = "1.0.0"
	revision = "unknown"
)

const usage = `tandem-proxy: HTTP front of the Tandem inference server

  tandem-proxy [serve] [--setting=value …]   serve until SIGTERM (the default)
  tandem-proxy check-config [--setting=value …]
                                             check settings and keys, print where each value comes from
  tandem-proxy keys new NAME                 make an API key: the entry on stdout, the secret once on stderr
  tandem-proxy keys hash                     read a secret from stdin, print the sha256 for an entry
  tandem-proxy drain [--setting=value …]     begin the drain of the running proxy (a pod's preStop hook)
  tandem-proxy healthcheck [--setting=value …]
                                             ask the running proxy whether it serves; exit status 0 when it does
  tandem-proxy test-monitoring [--url=URL] [--key=KEY] [--model=NAME]
                                             drive every monitoring endpoint of a running server and check shape and numbers
  tandem-proxy top [--url=URL] [--once]      show the figures of a running server, anew each second
  tandem-proxy licenses                      print the licences of what this program contains
  tandem-proxy --version, --help

`

// invocation is one run of a command: its arguments, its environment and where it writes.
type invocation struct {
	args           []string
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// errUsage is returned for an invalid command line.
var errUsage = errors.New("see tandem-proxy --help")

var commands = map[string]func(context.Context, invocation) error{
	"serve":           serve,
	"check-config":    checkConfig,
	"keys":            keys,
	"drain":           drain,
	"healthcheck":     healthcheck,
	"test-monitoring": testMonitoring,
	"selftest":        testMonitoring,
	"top":             showTop,
	"licenses":        printLicences,
	"help":            help,
	"version":         printVersion,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, invocation{args: os.Args[1:], environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tandem-proxy:", err)
		os.Exit(1)
	}
}

// run picks the command; the first argument that isn't a flag names it.
func run(ctx context.Context, inv invocation) error {
	name := "serve"
	if len(inv.args) > 0 && !strings.HasPrefix(inv.args[0], "-") {
		name, inv.args = inv.args[0], inv.args[1:]
	}
	runCommand, ok := commands[name]
	if !ok {
		return fmt.Errorf("unknown command %q: %w", name, errUsage)
	}
	err := runCommand(ctx, inv)
	switch {
	case errors.Is(err, settings.ErrHelp):
		return help(ctx, inv)
	case errors.Is(err, settings.ErrVersion):
		return printVersion(ctx, inv)
	}
	return err
}

func printLicences(_ context.Context, inv invocation) error {
	if _, err := io.WriteString(inv.stdout, licences); err != nil {
		return fmt.Errorf("write licences: %w", err)
	}
	return nil
}

func help(_ context.Context, inv invocation) error {
	if _, err := io.WriteString(inv.stdout, usage); err != nil {
		return fmt.Errorf("write help: %w", err)
	}
	return settings.WriteUsage(inv.stdout, settings.Proxy)
}

func printVersion(_ context.Context, inv invocation) error {
	_, err := fmt.Fprintf(inv.stdout, "tandem-proxy %s (revision %s, %s %s/%s)\n", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
