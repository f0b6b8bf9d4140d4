// Command bench measures proxy, engine and memory of the built programs and prints the figures with the machine's CPU.
// It asserts nothing: people compare a change with the state before it, best with both in turn. Benchmarks of single
// functions are in their packages.
//
//	bench unary   CPU of the proxy per unary request, against the mock engine, beside a bare HTTP server
//	bench stream  the same per streamed event
//	bench scrapes gaps between the events of a stream without and with a scrape each second
//	bench engine  tokens per second at 1, 4, 16 and 32 streams, beside llama-server when LLAMA_SERVER names it
//	bench smollm2 the same with the real model that SMOLLM2 names
//	bench serving kinds of work that users have, beside llama-server, with the real model that SMOLLM2 names
//	bench memory  resident memory of the idle programs, and time from engine start to the first token
//	bench model   only writes the model of the engine part, BENCH_DIR/models/bench/model.gguf
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"tandem/scripts/bench/report"
)

func main() {
	run := func() error { return bench(os.Args[1:]) }
	if encoded := os.Getenv(baselineEnv); encoded != "" {
		run = func() error { return serveBaseline(encoded, os.Args[1]) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(args []string) error {
	if len(args) == 0 {
		args = []string{"unary", "stream", "scrapes", "memory", "engine"}
	}
	fmt.Printf("machine: %s, %d CPUs, %s\n", report.CPUModel(), runtime.NumCPU(), runtime.Version())
	parts := map[string]func() error{"unary": benchUnary, "stream": benchStream, "scrapes": benchScrapes,
		"engine": benchEngineThroughput, "smollm2": benchSmolLM2, "serving": benchServing, "memory": benchMemoryAndStartup,
		"model": func() error { return ensureBenchModel(benchModelPath()) }}
	for _, name := range args {
		part, ok := parts[name]
		if !ok {
			return fmt.Errorf("no part %q; there are unary, stream, scrapes, memory, engine, smollm2, serving and model", name)
		}
		fmt.Printf("\n== %s\n", name)
		if err := part(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

var errNothingMeasured = errors.New("nothing was measured")
