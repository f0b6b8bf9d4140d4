package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"tandem/scripts/bench/load"
)

// sensor is one of the card's own figures.
type sensor struct {
	name, unit string
	rises      bool // above what it is while nothing is computed
}

var sensors = []sensor{
	{name: "llm_gpu_utilization_ratio", unit: "0 to 1"},
	{name: "llm_gpu_power_watts", unit: "W", rises: true},
	{name: "llm_gpu_temperature_celsius", unit: "°C"},
}

// nvml reads the card's figures under load, the highest of what was seen.
func (b *bench) nvml(ctx context.Context) error {
	if !strings.HasPrefix(strings.ToLower(b.device), "cuda") {
		return skipped("NVML tells of NVIDIA's cards alone; DEVICE is " + b.device)
	}
	shape := b.shapes[0]
	s, st, err := b.serveWarmShape(ctx, shape)
	if err != nil {
		return err
	}
	defer s.stop()
	devices := st.accelerators()
	if devices == nil {
		return errors.New("the model lies on no device")
	}
	if err := s.untilSampled(ctx); err != nil {
		return err
	}
	page, err := s.metrics(ctx)
	if err != nil {
		return err
	}
	idle := readSensors(page, devices[0])
	highest, err := b.watch(ctx, s, shape, devices[0])
	if err != nil {
		return err
	}
	work := shape + " on " + devices[0]
	for _, m := range sensors {
		if v, ok := idle[m.name]; ok {
			b.add(work, m.name, m.unit, "idle", v)
		}
		if v, ok := highest[m.name]; ok {
			b.add(work, m.name, m.unit, "highest under load", v)
		}
	}
	return checkSensors(idle, highest, partOfACard(ctx))
}

// checkSensors says what is wrong with the figures. Of a part of a card (MIG) NVML doesn't tell all of them.
func checkSensors(idle, highest map[string]float64, part bool) error {
	var wrong, missing []string
	for _, m := range sensors {
		switch v, ok := highest[m.name]; {
		case !ok:
			missing = append(missing, m.name)
		case v <= 0:
			wrong = append(wrong, fmt.Sprintf("%s is %g under load", m.name, v))
		case m.rises && v <= idle[m.name]:
			wrong = append(wrong, fmt.Sprintf("%s is %g under load and %g before", m.name, v, idle[m.name]))
		}
	}
	switch {
	case wrong != nil:
		return errors.New(strings.Join(wrong, "; "))
	case missing != nil && part:
		return skipped("of a part of a card (MIG) the driver doesn't tell " + strings.Join(missing, ", "))
	case missing != nil:
		return errors.New("nothing tells " + strings.Join(missing, ", "))
	}
	return nil
}

// partOfACard reports whether cards here are divided.
func partOfACard(ctx context.Context) bool {
	modes, err := nvidiaSMI(ctx, "--query-gpu=mig.mode.current", "--format=csv,noheader")
	return err == nil && strings.Contains(modes, "Enabled")
}

func readSensors(page, device string) map[string]float64 {
	values := map[string]float64{}
	for _, m := range sensors {
		if v := look(page, m.name, `device="`+device+`"`); !math.IsNaN(v) {
			values[m.name] = v
		}
	}
	return values
}

// watch keeps the server busy for some seconds and returns the highest of what a device's metrics say meanwhile.
func (b *bench) watch(ctx context.Context, s *server, shape, device string) (map[string]float64, error) {
	const long = 5 * time.Second
	busyCtx, leave := context.WithTimeout(ctx, long)
	defer leave()
	jobs := make([]load.Job, slices.Max(b.streams))
	for i := range jobs {
		jobs[i] = load.Job{Prompt: words[i%len(words)], MaxTokens: b.tokens, Adapter: load.NoAdapter}
	}
	var group sync.WaitGroup
	group.Go(func() {
		for busyCtx.Err() == nil {
			load.Closed(busyCtx, asked{model: shape}.target("tandem", s.url), jobs, len(jobs))
		}
	})
	highest := map[string]float64{}
	err := poll(busyCtx, func() (bool, error) {
		page, err := s.metrics(ctx)
		for name, v := range readSensors(page, device) {
			highest[name] = max(v, highest[name])
		}
		return false, err
	})
	leave()
	group.Wait()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = nil
	}
	return highest, err
}
