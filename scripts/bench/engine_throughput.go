package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tandem/scripts/launch"
)

const (
	throughputRounds    = 5
	promptTokens        = 64
	newTokens           = 64
	minRequestsPerRound = 8
)

// benchEngineThroughput measures the bench model.
func benchEngineThroughput() error {
	model := benchModelPath()
	if err := ensureBenchModel(model); err != nil {
		return err
	}
	return compareWithLlamaServer(model, randomPrompt)
}

// compareWithLlamaServer compares tokens per second with llama-server for the same model, threads and prompts, in
// alternating rounds.
func compareWithLlamaServer(model string, prompt func(i int) string) error {
	name := filepath.Base(filepath.Dir(model))
	threads := envOr("THREADS", "2")
	s, err := startTandem(envOr("PROXY", "bin/tandem-proxy"), envOr("ENGINE_PROGRAM", "bin/tandem-engine"),
		"MODELS_DIR="+filepath.Dir(filepath.Dir(model)), "DEFAULT_MODEL="+name, "THREADS="+threads, "PARALLEL=32", "CONTEXT=8192")
	if err != nil {
		return err
	}
	defer s.stop()
	targets := func(extra, serverExtra string, url string) []target {
		list := []target{tandemTarget(s.url, name, newTokens, prompt, extra)}
		if url != "" {
			list = append(list, llamaServerTarget(url, newTokens, prompt, serverExtra))
		}
		return list
	}
	serverURL := ""
	if program := os.Getenv("LLAMA_SERVER"); program != "" {
		server, url, err := startLlamaServer(program, model, threads)
		if err != nil {
			return err
		}
		defer stop(server)
		serverURL = url
	}
	fmt.Printf("model: %s; %s threads; about %d prompt and at most %d new tokens; median of %d alternated rounds\n", model, threads, promptTokens, newTokens, throughputRounds)
	streams, err := parseNumbers(envOr("BENCH_STREAMS", "1,4,16,32"))
	if err != nil {
		return fmt.Errorf("BENCH_STREAMS: %w", err)
	}
	prompts := 0
	for _, mode := range []struct{ name, ours, theirs string }{
		{"greedy", `,"temperature":0`, `,"temperature":0,"ignore_eos":false`},
		{"sampled", `,"temperature":0.8,"top_k":40,"top_p":0.95,"min_p":0`, `,"temperature":0.8,"top_k":40,"top_p":0.95,"min_p":0,"samplers":["top_k","top_p","temperature"]`},
	} {
		if !strings.Contains(envOr("BENCH_MODES", "greedy,sampled"), mode.name) {
			continue
		}
		for _, clients := range streams {
			if err := compareRounds(mode.name, clients, prompts, targets(mode.ours, mode.theirs, serverURL)); err != nil {
				return err
			}
			prompts += (throughputRounds + 1) * max(minRequestsPerRound, clients*2)
		}
	}
	return nil
}

// parseNumbers parses a list such as 1,4,16.
func parseNumbers(list string) ([]int, error) {
	var out []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no list of numbers such as 1,4,16", list)
		}
		out = append(out, n)
	}
	return out, nil
}

// compareRounds sends both servers the same new prompts in each round, so that no prompt cache helps.
func compareRounds(mode string, clients, firstPrompt int, targets []target) error {
	rates := make([][]float64, len(targets))
	requests := max(minRequestsPerRound, clients*2)
	for round := range throughputRounds + 1 { // the first warms up
		for i, t := range targets {
			r, err := runLoad(t, clients, firstPrompt+round*requests, requests)
			if err != nil {
				return err
			}
			if round > 0 {
				rates[i] = append(rates[i], r.tokensPerSecond())
			}
		}
	}
	line := fmt.Sprintf("%-8s %2d streams:", mode, clients)
	for i, t := range targets {
		line += fmt.Sprintf("  %s %.0f tokens/s", t.name, median(rates[i]))
	}
	if len(targets) == 2 {
		var ratios []float64
		for i := range rates[0] {
			ratios = append(ratios, rates[0][i]/rates[1][i])
		}
		line += fmt.Sprintf("  ratio %.2f", median(ratios))
	}
	fmt.Println(line)
	return nil
}

// randomPrompt returns 63 single-byte tokens; the begin token makes them 64. Prompts differ, so that no prefix is
// shared.
func randomPrompt(i int) string {
	text := fmt.Sprintf("%08d", i*7919%100_000_000)
	for len(text) < promptTokens-1 {
		text += string(rune('a' + (len(text)*31+i)%26))
	}
	return text
}

func benchModelPath() string {
	return filepath.Join(envOr("BENCH_DIR", filepath.Join(os.TempDir(), "tandem-bench")), "models", "bench", "model.gguf")
}

func ensureBenchModel(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fmt.Println("writing the bench model to", path)
	return writeBenchModel(path)
}

func startLlamaServer(program, model, threads string) (*launch.Process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	args := strings.Fields(fmt.Sprintf("--host 127.0.0.1 --port %d -m %s -t %s -c 8192 -np 32 --no-webui --log-disable", port, model, threads))
	// llama-server looks for backends in its own folder, and ours are in lib.
	backend := "GGML_BACKEND_PATH=" + filepath.Join(filepath.Dir(program), "..", "lib", "libggml-cpu.so")
	server, err := startProcess("llama-server", program, []string{backend}, args...)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := waitForOK(ctx, url+"/health"); err != nil {
		stop(server)
		return nil, "", err
	}
	return server, url, nil
}
