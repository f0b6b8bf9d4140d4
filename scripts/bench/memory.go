package main

import (
	"fmt"
	"time"
)

// benchMemory starts the programs with the demo model, asks one question and reports memory at rest and the time to the first token.
func benchMemory() error {
	began := time.Now()
	s, err := startStack(env("PROXY", "bin/tandem-proxy"), env("ENGINE_PROGRAM", "bin/tandem-engine"))
	if err != nil {
		return err
	}
	defer s.stop()
	ready := time.Since(began)
	one := tandem(s.url, "demo", 1, func(int) string { return "What is the capital of France?" }, "")
	if _, err := run(one, 1, 0, 1); err != nil {
		return err
	}
	first := time.Since(began)
	if _, err := run(tandem(s.url, "demo", 32, func(int) string { return "What is the capital of Italy?" }, ""), 8, 0, 200); err != nil {
		return err
	}
	engine, err := childOf(s.engine.cmd.Process.Pid)
	if err != nil {
		return err
	}
	for name, pid := range map[string]int{"proxy": s.proxy.cmd.Process.Pid, "supervisor": s.engine.cmd.Process.Pid, "engine": engine} {
		bytes, err := residentBytes(pid)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %6.1f MB resident after 201 requests\n", name, float64(bytes)/1e6)
	}
	fmt.Printf("start of both programs             ready after %d ms, first token after %d ms\n", ready.Milliseconds(), first.Milliseconds())
	return nil
}
