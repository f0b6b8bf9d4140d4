package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
	"tandem/scripts/launch"
)

// ownerStackName is a server in Python as people write it: scripts/bench/transformers/server.py.
const ownerStackName = "FastAPI + transformers"

// ownerStackStart is how long it may take to unpack the model.
const ownerStackStart = 3 * time.Minute

// ownerStack: the same requests to Tandem and to FastAPI with transformers, where that is installed. Nothing is asked
// of the figures: they show what changes for those who come from there.
func (b *serving) ownerStack() error {
	environment := os.Getenv("OWNER_STACK")
	if environment == "" || environment == "none" {
		b.say("skipped: OWNER_STACK names no environment; scripts/bench/transformers/install.sh makes one")
		return nil
	}
	ours, stopOurs, err := b.startTandem(servedModel, "CONTEXT=8192")
	if err != nil {
		return err
	}
	defer stopOurs()
	theirs, stopTheirs, err := b.startOwnerStack(environment)
	if err != nil {
		return err
	}
	defer stopTheirs()
	servers := []load.Server{ours, theirs}
	if err := b.warmUp(servers); err != nil {
		return err
	}
	tokens := b.full(64, 16) // it answers one request after the other
	for n, streams := range []int{1, 4, 16} {
		requests := b.full(max(4, streams), streams)
		work := fmt.Sprintf("%d streams, %d words in, %d tokens out", streams, shortWords, tokens)
		runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
			return b.closed(s, shortJobs(80+n, round, requests, tokens), streams)
		})
		if err != nil {
			return err
		}
		row := report.Row{Scenario: "owner-stack", Work: work, Figure: "tokens/s beside " + ownerStackName, Peer: ownerStackName}
		row.Ours, row.Theirs = each(runs[0], load.Run.TokensPerSecond), each(runs[1], load.Run.TokensPerSecond)
		b.add(&row)
	}
	return nil
}

func (b *serving) startOwnerStack(environment string) (load.Server, func(), error) {
	port, err := freePort()
	if err != nil {
		return load.Server{}, nil, err
	}
	// offline: everything comes from the model's file
	p, err := startProcess(ownerStackName, filepath.Join(environment, "bin", "python"), []string{"HF_HUB_OFFLINE=1"},
		"scripts/bench/transformers/server.py", "--port", fmt.Sprint(port), "--threads", b.threads, b.model)
	if err != nil {
		return load.Server{}, nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	b.say("%s unpacks the model", ownerStackName)
	if err := b.waitForOwnerStack(p, url+"/health"); err != nil {
		stop(p)
		return load.Server{}, nil, fmt.Errorf("start %s (BENCH_VERBOSE=1 shows its output): %w", ownerStackName, err)
	}
	return load.Server{
		Name: ownerStackName,
		Request: func(j load.Job) (*http.Request, error) {
			return jsonRequest(url+"/infer", map[string]any{"prompt": j.Prompt, "max_new_tokens": j.MaxTokens})
		},
		Last: lastOfInfer,
	}, func() { stop(p) }, nil
}

// waitForOwnerStack waits until the server is ready, or has ended.
func (b *serving) waitForOwnerStack(p *launch.Process, url string) error {
	ctx, cancel := context.WithTimeout(b.ctx, ownerStackStart)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.Ended(): // nobody will answer
			cancel()
		case <-ctx.Done():
		}
	})
	err := waitForOK(ctx, url)
	cancel()
	watch.Wait()
	select {
	case <-p.Ended():
		return fmt.Errorf("it ended: %v", p.Err())
	default:
		return err
	}
}
