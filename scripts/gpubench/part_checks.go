package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tandem/scripts/bench/report"
)

const mebibyte = 1 << 20

// machine tells what computes, and fails where the device doesn't.
func (b *bench) machine(ctx context.Context) error {
	b.note("%s, %d CPUs", report.CPUModel(), runtime.NumCPU())
	cards, err := nvidiaSMI(ctx, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader")
	if err != nil {
		b.note("nvidia-smi tells nothing: %v", err)
	} else {
		b.note("nvidia-smi: %s", strings.ReplaceAll(cards, "\n", "; "))
	}
	if err := b.checkKernels(cards); err != nil {
		return err
	}
	s, err := b.start(ctx, "DEMO_MODEL=true")
	if err != nil {
		return err
	}
	defer s.stop()
	b.add("demo model", "start", "s", b.device, s.started.Seconds())
	status, err := s.status(ctx)
	if err != nil {
		return err
	}
	for _, backend := range status.Backends {
		var devices []string
		for _, d := range backend.Devices {
			devices = append(devices, fmt.Sprintf("%s (%s, %.0f MiB)", d.Name, d.Description, d.Total/mebibyte))
		}
		b.note("backend %s: %s", backend.Name, strings.Join(devices, ", ")+backend.Problem)
	}
	b.note("%s computes", status.Device)
	if status.Device == "cpu" && b.device != "cpu" {
		return fmt.Errorf("the CPU computes, not %s", b.device)
	}
	return nil
}

// question is one to a version of the demo model.
type question struct{ version, prompt, want string }

// demoVersions are in the order of the columns of capitals.tsv.
var demoVersions = []string{"v1.0", "v1.1", "v2.0"}

// allowedWrong is how many answers of all may be wrong on a CPU, too.
const allowedWrong = 2

func (b *bench) capitals() (list []question, err error) {
	raw, err := os.ReadFile(filepath.Join(b.programs, "capitals.tsv"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") || len(fields) != 1+len(demoVersions) || len(list) >= b.questions*len(demoVersions) {
			continue
		}
		for i, v := range demoVersions {
			list = append(list, question{v, fields[0], fields[1+i]})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("capitals.tsv has no questions")
	}
	return list, nil
}

// answers asks for capitals on the device and on the CPU.
func (b *bench) answers(ctx context.Context) error {
	questions, err := b.capitals()
	if err != nil {
		return err
	}
	wrong := map[string]int{}
	for _, device := range []string{b.device, "cpu"} {
		s, err := b.start(ctx, "DEMO_MODEL=true", "DEVICE="+device)
		if err != nil {
			return err
		}
		outcomes := s.askAll(ctx, questions, func(int) {})
		s.stop()
		wrong[device] = b.tellOutcomes(device, questions, outcomes)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if n := wrong[b.device]; n > allowedWrong {
		return fmt.Errorf("%d of %d answers are wrong on %s, %d on the CPU", n, len(questions), b.device, wrong["cpu"])
	}
	return nil
}

// outcome is what came of a question.
type outcome struct {
	answer string
	err    error
}

// tellOutcomes tells how many answers are right, by version, and returns how many aren't.
func (b *bench) tellOutcomes(column string, questions []question, outcomes []outcome) (wrong int) {
	right, asked := map[string]int{}, map[string]int{}
	for i, q := range questions {
		asked[q.version]++
		switch o := outcomes[i]; {
		case o.err != nil:
			fmt.Fprintf(os.Stderr, "%s: %v\n", q.prompt, o.err)
		case o.answer != q.want:
			fmt.Fprintf(os.Stderr, "%s: %q, want %q\n", q.prompt, o.answer, q.want)
		default:
			right[q.version]++
		}
	}
	for _, v := range demoVersions {
		b.add("demo "+v, fmt.Sprintf("right of %d", asked[v]), "", column, float64(right[v]))
		wrong += asked[v] - right[v]
	}
	return wrong
}

// askAll asks everything, 32 at a time, and calls answered with the number of answers after each.
func (s *server) askAll(ctx context.Context, questions []question, answered func(n int)) []outcome {
	const clients = 32
	outcomes := make([]outcome, len(questions))
	var next, done atomic.Int64
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(questions) {
					return
				}
				q := questions[i]
				outcomes[i].answer, outcomes[i].err = s.infer(ctx, map[string]any{"prompt": q.prompt, "base_model": "demo",
					"adapter_version": q.version, "max_new_tokens": 40})
				answered(int(done.Add(1)))
			}
		})
	}
	group.Wait()
	return outcomes
}

func (s *server) infer(ctx context.Context, body map[string]any) (string, error) {
	var reply struct{ Result string }
	err := s.post(ctx, "/infer", body, &reply)
	return reply.Result, err
}

// seeds draws with seeds: the same one must draw alike, alone, and different ones should not.
func (b *bench) seeds(ctx context.Context) error {
	const count = 8
	s, err := b.start(ctx, "DEMO_MODEL=true")
	if err != nil {
		return err
	}
	defer s.stop()
	draw := func(seed int) (string, error) {
		return s.infer(ctx, map[string]any{"prompt": "Tell me about Paris.", "base_model": "demo", "adapter_version": "base",
			"max_new_tokens": 32, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "seed": seed})
	}
	// The first computes the whole prompt, the others its last token after a prefix that is kept: on a GPU these are
	// different kernels, whose last bits may decide a draw.
	if _, err := draw(0); err != nil {
		return err
	}
	same, different := 0, map[string]bool{}
	for seed := range count {
		var answers [2]string
		for i := range answers {
			if answers[i], err = draw(seed); err != nil {
				return err
			}
		}
		if answers[0] == answers[1] {
			same++
		}
		different[answers[0]] = true
	}
	b.add("demo, temperature 1.5", fmt.Sprintf("seeds that draw alike twice, of %d", count), "", b.device, float64(same))
	b.add("demo, temperature 1.5", "different answers", "", b.device, float64(len(different)))
	if same < count || len(different) < 2 {
		return fmt.Errorf("%d of %d seeds draw alike, %d different answers", same, count, len(different))
	}
	return nil
}

// kill kills the engine while 32 clients ask, three times. Every question must be answered all the same.
func (b *bench) kill(ctx context.Context) error {
	const kills = 3
	questions, err := b.capitals()
	if err != nil {
		return err
	}
	s, err := b.start(ctx, "DEMO_MODEL=true")
	if err != nil {
		return err
	}
	defer s.stop()
	killed := 0
	var outcomes []outcome
	for i := range kills {
		third := questions[i*len(questions)/kills : (i+1)*len(questions)/kills]
		answers, hit := s.askAndKill(ctx, third)
		outcomes = append(outcomes, answers...)
		if hit {
			killed++
		}
	}
	failed := 0
	for _, o := range outcomes {
		if o.err != nil {
			failed++
		}
	}
	wrong := b.tellOutcomes("after kill -9", questions, outcomes)
	b.add("demo, all versions", "kills", "", "after kill -9", float64(killed))
	b.add("demo, all versions", "requests without an answer", "", "after kill -9", float64(failed))
	if failed > 0 || killed < kills || wrong > allowedWrong {
		return fmt.Errorf("%d kills: %d of %d requests without an answer, %d wrong", killed, failed, len(questions), wrong)
	}
	return nil
}

// askAndKill asks everything and kills the engine when half is answered: that engine gave these answers, so it is there
// to be killed.
func (s *server) askAndKill(ctx context.Context, questions []question) (outcomes []outcome, killed bool) {
	var once sync.Once
	outcomes = s.askAll(ctx, questions, func(n int) {
		if n < len(questions)/2 {
			return
		}
		once.Do(func() {
			pid := s.engine.ChildPID()
			killed = pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil
		})
	})
	return outcomes, killed
}

// memory compares what was planned for each shape with what the devices say is in use.
func (b *bench) memory(ctx context.Context) error {
	for _, shape := range b.shapes {
		if err := b.memoryOf(ctx, shape); err != nil {
			return fmt.Errorf("%s: %w", shape, err)
		}
	}
	return nil
}

func (b *bench) memoryOf(ctx context.Context, shape string) error {
	s, st, err := b.serveWarmShape(ctx, shape)
	if err != nil {
		return err
	}
	defer s.stop()
	if len(st.Memory) != 1 {
		return fmt.Errorf("/status tells the memory of %d models", len(st.Memory))
	}
	planned := map[string]float64{}
	for _, d := range st.Memory[0].Devices {
		planned[d.Name] = d.Weights + d.Cache + d.Compute
	}
	b.note("%s: %d cells, decided by %s", shape, st.Memory[0].Cells, st.Memory[0].Limit)
	measured := 0
	for _, backend := range st.Backends {
		for _, d := range backend.Devices {
			if backend.Name == "cpu" || planned[d.Name] == 0 {
				continue
			}
			used, err := s.memoryInUse(ctx, d.Name)
			if err != nil {
				return err
			}
			measured++
			work := shape + " on " + d.Name
			b.add(work, "planned", "MiB", "memory", planned[d.Name]/mebibyte)
			b.add(work, "measured", "MiB", "memory", (used-(d.Total-d.Free))/mebibyte)
			b.add(work, "of the device", "MiB", "memory", d.Total/mebibyte)
		}
	}
	b.tellProcesses(ctx, shape)
	if measured == 0 {
		return errors.New("nothing was planned on a device")
	}
	return nil
}

// untilSampled waits for samples of what has become of the devices: they are taken once a second.
func (s *server) untilSampled(ctx context.Context) error {
	const long = 1500 * time.Millisecond
	select {
	case <-time.After(long):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// memoryInUse asks several times: a page lacks what the engine couldn't tell in time.
func (s *server) memoryInUse(ctx context.Context, device string) (float64, error) {
	for range 10 {
		if err := s.untilSampled(ctx); err != nil {
			return 0, err
		}
		page, err := s.metrics(ctx)
		if err != nil {
			return 0, err
		}
		if used := look(page, "llm_device_memory_used_bytes", `device="`+device+`"`); !math.IsNaN(used) {
			return used, nil
		}
	}
	return 0, fmt.Errorf("no metric says how much of %s is in use", device)
}

// tellProcesses tells what nvidia-smi says that processes use.
func (b *bench) tellProcesses(ctx context.Context, shape string) {
	text, err := nvidiaSMI(ctx, "--query-compute-apps=name,used_memory", "--format=csv,noheader")
	if err == nil && text != "" {
		b.note("%s: nvidia-smi: %s", shape, strings.ReplaceAll(text, "\n", "; "))
	}
}
