package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tandem/scripts/gpubench/randommodel"
)

const (
	adapterCount = 8
	adapterRank  = 16
	modelSeed    = 1
)

func (o *options) models() string { return filepath.Join(o.out, "models") }

// dropModelsOfOthers removes the models that another build wrote: their shapes may be others.
func (o *options) dropModelsOfOthers() error {
	stamp := filepath.Join(o.out, "models.version")
	if there, err := os.ReadFile(stamp); err == nil && string(there) == version {
		return nil
	}
	if err := os.RemoveAll(o.models()); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(version), 0o644)
}

func (b *bench) modelPath(shape string) string { return filepath.Join(b.models(), shape, "model.gguf") }

// writeModels makes the random models, and adapters for the first.
func (b *bench) writeModels(context.Context) error {
	for _, shape := range b.shapes {
		began := time.Now()
		if err := b.ensureModel(shape); err != nil {
			return err
		}
		file, err := os.Stat(b.modelPath(shape))
		if err != nil {
			return err
		}
		b.add(shape, "size", "GB", "model", float64(file.Size())/1e9)
		b.add(shape, "writing", "s", "model", time.Since(began).Seconds())
	}
	return b.ensureAdapters(b.shapes[0])
}

// ensureModel writes a model unless it is there. Its time is set back: what changed a moment ago isn't served yet.
func (b *bench) ensureModel(name string) error {
	s, err := randommodel.ShapeOf(name)
	if err != nil {
		return err
	}
	return ensure(b.modelPath(name), func(path string) error { return randommodel.Write(path, s, modelSeed) })
}

func (b *bench) ensureAdapters(name string) error {
	s, err := randommodel.ShapeOf(name)
	if err != nil {
		return err
	}
	for i := range adapterCount {
		path := filepath.Join(b.models(), name, "versions", fmt.Sprintf("a%d.gguf", i))
		write := func(path string) error { return randommodel.WriteAdapter(path, s, adapterRank, uint64(i)) }
		if err := ensure(path, write); err != nil {
			return err
		}
	}
	return nil
}

func ensure(path string, write func(path string) error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := write(path); err != nil {
		return err
	}
	before := time.Now().Add(-time.Minute)
	return os.Chtimes(path, before, before)
}

// throughput measures each shape at each number of streams, beside llama-server where the pack has it. The largest
// shape comes first.
func (b *bench) throughput(ctx context.Context) error {
	var failed []error
	for _, shape := range slices.Backward(b.shapes) {
		devices, served, err := b.ourSpeed(ctx, shape)
		failed = append(failed, err)
		if served {
			failed = append(failed, b.theirSpeed(ctx, shape, devices))
		}
	}
	return errors.Join(failed...)
}

// ourSpeed measures Tandem. The devices are those on which the model lies, none for the CPU; served: it did.
func (b *bench) ourSpeed(ctx context.Context, shape string) (devices []string, served bool, err error) {
	s, err := b.serveShape(ctx, shape)
	if err != nil {
		return nil, false, fmt.Errorf("start with %s: %w", shape, err)
	}
	defer s.stop()
	b.add(shape, "start", "s", "tandem", s.started.Seconds())
	if err := b.warm(ctx, asked{model: shape}.target("tandem", s.url)); err != nil {
		return nil, false, fmt.Errorf("first request to %s: %w", shape, err)
	}
	st, err := s.status(ctx)
	if err != nil {
		return nil, false, err
	}
	return st.accelerators(), true, b.speeds(ctx, s, asked{model: shape}, b.streams, "tandem")
}

// speeds measures our server at several numbers of streams.
func (b *bench) speeds(ctx context.Context, s *server, a asked, streams []int, column string) error {
	target := a.target("tandem", s.url)
	if err := b.warm(ctx, target); err != nil {
		return fmt.Errorf("first request to %s: %w", a.model, err)
	}
	for _, n := range streams {
		if err := b.speed(ctx, target, a, n, column); err != nil {
			return fmt.Errorf("%s: %w; %s", a.model, err, complaints(s.engineLog.String()))
		}
	}
	return nil
}

// few are the numbers of streams at which settings are compared: the least, one in the middle and the most.
func (b *bench) few() []int {
	sorted := slices.Sorted(slices.Values(b.streams))
	return slices.Compact([]int{sorted[0], sorted[len(sorted)*3/4], sorted[len(sorted)-1]})
}

// compareSetting measures the same with each value of a setting.
func (b *bench) compareSetting(ctx context.Context, setting string, temperature float64, values ...string) error {
	if known, err := b.knows(ctx, setting); err != nil {
		return err
	} else if !known {
		return skipped("the engine has no setting " + setting)
	}
	shape := b.shapes[len(b.shapes)-1]
	for _, value := range values {
		s, err := b.serveShape(ctx, shape, setting+"="+value)
		if err != nil {
			return fmt.Errorf("start with %s=%s: %w", setting, value, err)
		}
		err = b.speeds(ctx, s, asked{model: shape, temperature: temperature}, b.few(), setting+"="+value)
		b.tellDraws(ctx, s, setting+"="+value)
		s.stop()
		if err != nil {
			return fmt.Errorf("%s=%s: %w", setting, value, err)
		}
	}
	return nil
}

// tellDraws tells how many tokens were drawn from what the device picked, where the engine counts them: without any the
// settings weren't compared.
func (b *bench) tellDraws(ctx context.Context, s *server, value string) {
	page, err := s.metrics(ctx)
	if err != nil {
		return // what was measured counts
	}
	if draws := look(page, "llm_engine_device_draws_total", ""); !math.IsNaN(draws) {
		b.note("%s: %.0f tokens were drawn from candidates that the device picked", value, draws)
	}
}

func (b *bench) kvLayout(ctx context.Context) error {
	return b.compareSetting(ctx, "KV_LAYOUT", 0, "unified", "streams")
}

// sampling draws with a temperature: the most likely token alone would leave most of the work out.
func (b *bench) sampling(ctx context.Context) error {
	return b.compareSetting(ctx, "BACKEND_SAMPLING", 0.8, "off", "on")
}

// adapters measures the first shape without adapters, with one for all streams and with different ones beside each
// other.
func (b *bench) adapters(ctx context.Context) error {
	shape := b.shapes[0]
	if err := b.ensureAdapters(shape); err != nil {
		return err
	}
	s, err := b.serveShape(ctx, shape)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, n := range []int{0, 1, adapterCount} {
		if err := b.speeds(ctx, s, asked{model: shape, adapters: n}, b.few(), fmt.Sprintf("adapters: %d", n)); err != nil {
			return err
		}
	}
	return nil
}
