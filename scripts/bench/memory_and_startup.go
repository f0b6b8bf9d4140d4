package main

import (
	"errors"
	"fmt"
	"time"
)

// benchMemoryAndStartup starts the programs with the demo model and reports the time to the first token, and the
// resident memory after some load.
func benchMemoryAndStartup() error {
	began := time.Now()
	s, err := startTandem(envOr("PROXY", "bin/tandem-proxy"), envOr("ENGINE_PROGRAM", "bin/tandem-engine"))
	if err != nil {
		return err
	}
	defer s.stop()
	ready := time.Since(began)
	oneToken := tandemTarget(s.url, "demo", 1, func(int) string { return "What is the capital of France?" }, "")
	if _, err := runLoad(oneToken, 1, 0, 1); err != nil {
		return err
	}
	firstToken := time.Since(began)
	if _, err := runLoad(tandemTarget(s.url, "demo", 32, func(int) string { return "What is the capital of Italy?" }, ""), 8, 0, 200); err != nil {
		return err
	}
	engine := s.engine.ChildPID()
	if engine == 0 {
		return errors.New("the supervisor has no engine")
	}
	for name, pid := range map[string]int{"proxy": s.proxy.PID(), "supervisor": s.engine.PID(), "engine": engine} {
		bytes, err := residentBytes(pid)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %6.1f MB resident after 201 requests\n", name, float64(bytes)/1e6)
	}
	fmt.Printf("start of both programs             ready after %d ms, first token after %d ms\n", ready.Milliseconds(), firstToken.Milliseconds())
	return nil
}
