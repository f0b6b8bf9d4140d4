// The engine of Tandem: it owns the hardware, loads models and decodes. It listens on nothing; it dials the proxy's
// socket. When it dies, clients notice only a pause. This package holds the commands and the wiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"tandem/engine/supervise"
	"tandem/schema/settings"
)

// Set by the linker.
var (
	version  = "1.0.0"
	revision = "unknown"
)

func build() string { return version + "+" + revision }

const usage = `Usage: tandem-engine COMMAND [SETTINGS]

Commands:
  serve        run the engine (the default)
  supervise    run the engine as a child, start it again when it dies or hangs
  check-config check the settings, print where each value comes from
  healthcheck  --live or --started: ask the running engine by its heartbeat; exit code 0 when it is
  licenses     print the licences of what this program contains
  version      print versions

`

// Exit codes.
const (
	codeFailed = 1
	codeUsage  = supervise.UsageCode
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// run runs one command and returns the exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	command := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	if command == "version" {
		args = []string{"--version"}
	}
	var probe supervise.Health
	if command == "healthcheck" {
		probe, args = healthFlag(args)
	}
	switch command {
	case "serve", "supervise", "check-config", "healthcheck", "version":
	case "licenses":
		printLicences(stdout, environ)
		return 0
	default:
		fmt.Fprintf(stderr, "tandem-engine: unknown command %q; see tandem-engine --help\n", command)
		return codeUsage
	}
	c, err := loadConfig(args, environ)
	switch {
	case errors.Is(err, settings.ErrHelp):
		fmt.Fprint(stdout, usage)
		if err := settings.WriteUsage(stdout, settings.Engine); err != nil {
			return codeFailed
		}
		return 0
	case errors.Is(err, settings.ErrVersion):
		fmt.Fprintf(stdout, "tandem-engine %s\nllama.cpp %s\n", build(), libraryCommit())
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "tandem-engine: the settings can't be used:\n%v\n", err)
		return codeUsage
	}
	if command == "check-config" {
		return printSettings(c, stdout, stderr)
	}
	log := newLog(c, stderr)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	switch command {
	case "healthcheck":
		return healthcheck(c, probe, stdout)
	case "supervise":
		return runSupervisor(c, args, environ, log)
	}
	return runEngine(c, log)
}

func newLog(c *Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options)).With("program", "engine")
	}
	return slog.New(slog.NewTextHandler(w, options)).With("program", "engine")
}

// healthFlag removes the healthcheck's own flag from the arguments.
func healthFlag(args []string) (supervise.Health, []string) {
	probe := supervise.Live
	var rest []string
	for _, a := range args {
		switch strings.TrimLeft(a, "-") {
		case "live":
		case "started":
			probe = supervise.Started
		default:
			rest = append(rest, a)
		}
	}
	return probe, rest
}

func healthcheck(c *Config, probe supervise.Health, stdout io.Writer) int {
	if err := supervise.Check(c.Socket, probe, c.StallTimeout); err != nil {
		fmt.Fprintln(stdout, err)
		return codeFailed
	}
	fmt.Fprintln(stdout, "ok")
	return 0
}

func runSupervisor(c *Config, args, environ []string, log *slog.Logger) int {
	stop := outliveSignals(log)
	defer stop()
	program, err := os.Executable()
	if err != nil {
		log.Error("the supervisor can't find its own program", "err", err)
		return codeFailed
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	err = supervise.Run(supervise.Options{
		Program: program, Args: append([]string{"serve"}, args...), Env: environ, Socket: c.Socket,
		StallTimeout: c.StallTimeout, DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout, Signals: signals, Log: log,
	})
	if errors.As(err, &supervise.UsageError{}) {
		return codeUsage
	}
	if err != nil {
		log.Error("supervisor ends", "err", err)
		return codeFailed
	}
	return 0
}

// runEngine serves until a signal: the first one starts a drain, the second one cuts it short.
func runEngine(c *Config, log *slog.Logger) int {
	stop := outliveSignals(log)
	defer stop()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	e, err := start(c, log)
	if wrong, ok := errors.AsType[*settings.Error](err); ok {
		log.Error("the settings can't be used", "err", wrong)
		return codeUsage
	}
	if err != nil {
		log.Error("engine can't start", "err", err)
		return codeFailed
	}
	got := <-signals
	log.Info("asked to end", "signal", got.String())
	ctx, cancel := context.WithTimeoutCause(context.Background(), c.DrainTimeout, errors.New("DRAIN_TIMEOUT passed"))
	defer cancel()
	ctx, hurry := context.WithCancelCause(ctx)
	defer hurry(nil)
	go func() {
		select {
		case <-signals:
			hurry(errors.New("a second signal came"))
		case <-ctx.Done():
		}
	}()
	if err := e.drain(ctx); err != nil {
		log.Warn("the drain was cut short", "err", err)
	}
	if err := e.close(); err != nil {
		log.Error("engine ends untidily", "err", err)
		return codeFailed
	}
	log.Info("engine ended")
	return 0
}
