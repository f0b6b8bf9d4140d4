package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"tandem/scripts/bench/load"
)

// batchedBenchName is the library's own benchmark: it decodes batches of random tokens in one process, and neither
// samples nor makes text. It shows what is left of the library's speed behind a server.
const batchedBenchName = "llama-batched-bench"

// batchedBench lets streams begin together, each with a prompt of so many tokens.
func (b *serving) batchedBench(streams, promptTokens, newTokens int) (load.Run, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Minute)
	defer cancel()
	cells := fmt.Sprint(streams * (promptTokens + newTokens))
	c := exec.CommandContext(ctx, filepath.Join(b.peers, batchedBenchName), "-m", b.model, "-t", b.threads, "-c", cells,
		"-npp", fmt.Sprint(promptTokens), "-ntg", fmt.Sprint(newTokens), "-npl", fmt.Sprint(streams), "--output-format", "jsonl")
	c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+b.peers) // not the library that our engine was linked with
	var complaints bytes.Buffer
	c.Stderr = &complaints
	output, err := c.Output()
	if err != nil {
		return load.Run{}, fmt.Errorf("%s with %d streams: %w: %s", batchedBenchName, streams, err, tail(complaints.Bytes(), 1000))
	}
	return parseBatchedBench(output, streams, newTokens)
}

// parseBatchedBench finds the result of a number of streams among the lines of the program's output. Its time is that
// of prompts and answers together, as a server's clients count it.
func parseBatchedBench(output []byte, streams, newTokens int) (load.Run, error) {
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte("{")) {
			continue
		}
		var result struct {
			Streams       int     `json:"pl"`
			NewTokens     int     `json:"tg"`
			PromptSeconds float64 `json:"t_pp"`
			Seconds       float64 `json:"t"`
		}
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			return load.Run{}, fmt.Errorf("%s printed %.200q: %w", batchedBenchName, lines.Bytes(), err)
		}
		if result.Streams != streams || result.NewTokens != newTokens {
			continue
		}
		if result.Seconds <= 0 || result.PromptSeconds <= 0 || result.PromptSeconds > result.Seconds {
			return load.Run{}, fmt.Errorf("%s printed times that can't be: %s", batchedBenchName, lines.Bytes())
		}
		return equalStreams(streams, newTokens, seconds(result.PromptSeconds), seconds(result.Seconds)), nil
	}
	if err := lines.Err(); err != nil {
		return load.Run{}, fmt.Errorf("read what %s printed: %w", batchedBenchName, err)
	}
	return load.Run{}, fmt.Errorf("%s printed no result for %d streams of %d tokens", batchedBenchName, streams, newTokens)
}

// equalStreams is a run of streams that began and ended together. Only their first token's time is known.
func equalStreams(streams, tokens int, first, whole time.Duration) load.Run {
	run := load.Run{Timelines: make([]load.Timeline, streams), Elapsed: whole}
	for i := range run.Timelines {
		run.Timelines[i] = load.Timeline{Events: []time.Duration{first}, Ended: whole, Tokens: tokens}
	}
	return run
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func tail(text []byte, most int) []byte { return text[max(0, len(text)-most):] }
