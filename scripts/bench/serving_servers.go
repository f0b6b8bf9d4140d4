package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

func machine() string {
	return fmt.Sprintf("%s, %d CPUs, %s", report.CPUModel(), runtime.NumCPU(), runtime.Version())
}

// startPair starts Tandem and, where it was built, llama-server; both serve the same file. stop ends both.
func (b *serving) startPair(file, model string, settings []string, peerArgs ...string) (servers []load.Server, stop func(), err error) {
	ours, stopOurs, err := b.startTandem(model, settings...)
	if err != nil {
		return nil, nil, err
	}
	servers, stop = []load.Server{ours}, stopOurs
	if b.peers != "" {
		theirs, stopTheirs, err := b.startPeer(file, peerArgs...)
		if err != nil {
			stopOurs()
			return nil, nil, err
		}
		servers, stop = append(servers, theirs), func() { stopOurs(); stopTheirs() }
	}
	if err := b.warmUp(servers); err != nil {
		stop()
		return nil, nil, err
	}
	return servers, stop, nil
}

// warmUp asks each server once: the first request pays for memory that is touched for the first time.
func (b *serving) warmUp(servers []load.Server) error {
	for _, s := range servers {
		if _, err := b.closed(s, []load.Job{{Prompt: "Hello", MaxTokens: 2, Adapter: load.NoAdapter}}, 1); err != nil {
			return fmt.Errorf("first request to %s: %w", s.Name, err)
		}
	}
	return nil
}

func (b *serving) startTandem(model string, settings ...string) (load.Server, func(), error) {
	settings = append([]string{"MODELS_DIR=" + b.models, "DEFAULT_MODEL=" + model, "DEFAULT_VERSION=base", "THREADS=" + b.threads,
		"PARALLEL=32", "CACHE_SIZE=10", "REQUEST_TIMEOUT=600s"}, settings...)
	s, err := startTandem(envOr("PROXY", "bin/tandem-proxy"), envOr("ENGINE_PROGRAM", "bin/tandem-engine"), settings...)
	if err != nil {
		return load.Server{}, nil, err
	}
	return load.Server{
		Name: "tandem",
		Request: func(j load.Job) (*http.Request, error) {
			version := "base"
			if j.Adapter != load.NoAdapter {
				version = adapterName(j.Adapter)
			}
			body := map[string]any{"base_model": model, "adapter_version": version, "prompt": j.Prompt,
				"max_new_tokens": j.MaxTokens, "temperature": 0, "stream": true}
			r, err := jsonRequest(s.url+"/infer", body)
			if err == nil {
				r.Header.Set("X-API-Key", "bench-key")
				if j.Deadline > 0 {
					r.Header.Set("X-Request-Timeout", fmt.Sprint(j.Deadline.Seconds()))
				}
			}
			return r, err
		},
		Last: lastOfInfer,
	}, s.stop, nil
}

// lastOfInfer finds the last event of a stream of /infer, which has the whole result.
func lastOfInfer(event []byte) (tokens int, last bool, err error) {
	if !bytes.HasPrefix(event, []byte(`{"result"`)) {
		return 0, false, refusal(event)
	}
	var e struct {
		Metadata struct {
			Tokens int `json:"tokens_generated"`
		} `json:"metadata"`
	}
	err = json.Unmarshal(event, &e)
	return e.Metadata.Tokens, true, err
}

// Types of errors by which a stream says that there isn't time enough: queue_full tells it of a request that was let in
// before it has passed.
var lateTypes = [][]byte{[]byte(`"deadline_exceeded"`), []byte(`"queue_timeout"`), []byte(`"queue_full"`)}

// refusal is the error that an event of a stream tells.
func refusal(event []byte) error {
	if !bytes.HasPrefix(event, []byte(`{"error"`)) {
		return nil
	}
	if slices.ContainsFunc(lateTypes, func(name []byte) bool { return bytes.Contains(event, name) }) {
		return fmt.Errorf("%w: error event: %s", load.ErrLate, event)
	}
	return fmt.Errorf("error event: %s", event)
}

// startPeer starts llama-server as its users do: nothing is set but the sizes that the work needs.
func (b *serving) startPeer(file string, args ...string) (load.Server, func(), error) {
	port, err := freePort()
	if err != nil {
		return load.Server{}, nil, err
	}
	args = append([]string{"--host", "127.0.0.1", "--port", fmt.Sprint(port), "-m", file, "-t", b.threads, "--no-webui"}, args...)
	if os.Getenv("BENCH_VERBOSE") == "" {
		args = append(args, "--log-disable")
	}
	// not the library that our engine was linked with
	p, err := startProcess(peerName, filepath.Join(b.peers, "llama-server"), []string{"LD_LIBRARY_PATH=" + b.peers}, args...)
	if err != nil {
		return load.Server{}, nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := waitForOK(ctx, url+"/health"); err != nil {
		stop(p)
		return load.Server{}, nil, err
	}
	return load.Server{
		Name: peerName,
		Request: func(j load.Job) (*http.Request, error) {
			body := map[string]any{"prompt": j.Prompt, "n_predict": j.MaxTokens, "temperature": 0, "stream": true}
			if j.Adapter != load.NoAdapter {
				body["lora"] = []map[string]any{{"id": j.Adapter, "scale": 1}}
			}
			r, err := jsonRequest(url+"/completion", body)
			if err == nil {
				// It sometimes closes a connection when the next request is on its way. Present but empty, the
				// header isn't sent, and makes the client send such a request again on a new connection.
				r.Header["Idempotency-Key"] = nil
			}
			return r, err
		},
		Last: func(event []byte) (int, bool, error) {
			var e struct {
				Stop   bool `json:"stop"`
				Tokens int  `json:"tokens_predicted"`
			}
			if err := refusal(event); err != nil {
				return 0, false, err
			}
			err := json.Unmarshal(event, &e)
			return e.Tokens, e.Stop, err
		},
	}, func() { stop(p) }, nil
}

func jsonRequest(url string, body any) (*http.Request, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(encoded))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// adapterArgs makes llama-server load the adapters, none of which applies unless a request says so.
func (b *serving) adapterArgs() []string {
	return []string{"--lora", strings.Join(b.adapters, ","), "--lora-init-without-apply"}
}
