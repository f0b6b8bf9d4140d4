package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"tandem/engine/demo"
	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"

	"github.com/ulikunitz/xz"
)

// demoModelName is the built-in model's as a model of the directory, without its chat template: with it the prompts,
// and so the answers, would be others than llama-server's.
const demoModelName = "demo-raw"

// demoModel: requests that cost next to nothing, so that everything around the model shows.
func (b *serving) demoModel() error {
	servers, stop, err := b.startPair(b.demo, demoModelName, nil, "-np", "32", "-c", "16384")
	if err != nil {
		return err
	}
	defer stop()
	for n, clients := range []int{1, 16, 64} {
		work := fmt.Sprintf("demo model, %d connections", clients)
		requests := b.full(300+30*clients, 200+20*clients)
		runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
			return b.closed(s, demoJobs(n, round, requests), clients)
		})
		if err != nil {
			return err
		}
		row := report.Row{Scenario: "demo", Work: work, Figure: "requests/s", Required: report.Bound{AtLeast: 1}}
		b.add(compare(row, runs, load.Run.RequestsPerSecond))
	}
	return nil
}

// demoJobs are questions of which none comes twice. The number that makes them so comes first, and backwards, so that
// neighbours differ from the start.
func demoJobs(scenario, round, n int) []load.Job {
	jobs := make([]load.Job, n)
	for i := range jobs {
		number := backwards(fmt.Sprintf("%d%d%04d", 1+scenario, round, i))
		prompt := fmt.Sprintf("%s. What is the capital of %s?", number, countries[i%len(countries)])
		jobs[i] = load.Job{Prompt: prompt, MaxTokens: 16, Adapter: load.NoAdapter}
	}
	return jobs
}

func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// ensureDemoModel installs the built-in model as one of a directory, which llama-server reads too.
func ensureDemoModel(dir string) (path string, err error) {
	path = filepath.Join(dir, "model.gguf")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unpacked, err := xz.NewReader(bytes.NewReader(demo.Files()[0].Packed))
	if err != nil {
		return "", err
	}
	unpack := func(f *os.File) error {
		_, err := io.Copy(f, unpacked)
		return err
	}
	if err := writeFile(path, unpack); err != nil {
		return "", err
	}
	settings, err := withoutTemplate(dir)
	if err != nil {
		return "", err
	}
	return path, makeOld([]string{path, settings})
}

var countries = [...]string{"France", "Norway", "Japan", "Kenya", "Peru", "Canada", "Egypt", "India", "Italy", "Chile", "Ghana", "Spain"}
