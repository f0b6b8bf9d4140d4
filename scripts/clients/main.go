// Command clients tries what people use against a running server: the libraries of OpenAI and Anthropic, LangChain,
// LiteLLM, instructor and the Vercel AI SDK. It starts both programs on the loopback interface, runs a suite for each
// client, one after the other since they count cancelled requests, prints a table and ends with status 1 if a case
// failed. scripts/clients.sh builds the programs, installs the clients and calls it.
//
// Arguments are names of suites; none means all. Environment: PROXY and ENGINE_PROGRAM (programs), ENGINE (mock or
// llama), MODEL_FILE (with llama: a GGUF file), PYTHON_ENVIRONMENTS (folder with a virtual environment for each Python
// suite), ALLOW_PENDING=1 (endpoints that the server lacks are no failure), ONLY_CASES (names of cases).
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suiteLimit is how long one suite may take, on a busy machine as well.
const suiteLimit = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "test-clients:", err)
	}
	if err != nil || !good {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) (good bool, err error) {
	chosen, err := chooseSuites(names)
	if err != nil {
		return false, err
	}
	cases, err := readCases("scripts/clients/cases.txt")
	if err != nil {
		return false, err
	}
	if cases, err = chooseCases(cases, strings.Fields(os.Getenv("ONLY_CASES"))); err != nil {
		return false, err
	}
	server, err := startServer(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	r := report{cases: cases, allowPending: os.Getenv("ALLOW_PENDING") == "1"}
	for _, s := range chosen {
		if ctx.Err() == nil {
			r.runSuite(ctx, &s, server)
		}
	}
	r.print(os.Stdout)
	return r.good() && ctx.Err() == nil, nil
}

func chooseCases(all, only []string) ([]string, error) {
	if len(only) == 0 {
		return all, nil
	}
	for _, name := range only {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("ONLY_CASES: there is no case %q; there are %s", name, strings.Join(all, " "))
		}
	}
	return only, nil
}

func chooseSuites(names []string) ([]suite, error) {
	var chosen []suite
	for _, s := range suites {
		if len(names) == 0 || slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == n }) {
			return nil, fmt.Errorf("no suite is called %q", n)
		}
	}
	return chosen, nil
}

// runSuite runs one suite and takes its results as they come. A suite that ends early has failed in the cases it left.
func (r *report) runSuite(ctx context.Context, s *suite, server *server) {
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.command[0], s.command[1:]...)
	cmd.Env = append(os.Environ(), server.forSuites()...)
	cmd.Stderr = server.log
	cmd.WaitDelay = time.Second
	fmt.Fprintf(server.log, "=== %s\n", s.name)
	r.endSuite(s, r.follow(cmd, s))
}

// follow starts a suite and takes its results until it has ended.
func (r *report) follow(cmd *exec.Cmd, s *suite) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run the suite %s: %w", s.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the suite %s: %w", s.name, err)
	}
	return errors.Join(r.readResults(out, s), cmd.Wait())
}

// readResults takes one result from each line.
func (r *report) readResults(from io.Reader, s *suite) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := r.add(s, lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}
