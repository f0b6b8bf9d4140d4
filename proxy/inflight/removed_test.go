package inflight

import (
	"testing"
	"time"
)

func catalogOf(names ...string) *Catalog {
	c := &Catalog{CacheSize: 3}
	for _, name := range names {
		c.Models = append(c.Models, Model{Name: name, ContextTokens: 2048, DefaultVersion: "base", Versions: []Version{{Name: "base"}}})
	}
	return c
}

// The engine says what is installed; what it doesn't name any more loses its series after an hour, but not under a request.
func TestSeriesGoWithTheirModel(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		b.Catalog(f, catalogOf("demo", "old"))
		ask := func() Answer {
			return b.admit(func(r *Request) { r.Infer.Model, r.Infer.Version, r.Timeout = "old", "base", 0 })
		}
		a := ask()
		b.serve(f, f.last(t), 3)
		a.Settle(Delivered)

		long := ask()
		b.accept(f, f.last(t))
		b.Catalog(f, catalogOf("demo"))
		time.Sleep(59 * time.Minute)
		b.wantValue(3, "tokens_generated_total", "model=old")
		b.lose(f) // while no engine is there nothing is known to be gone, and nothing is known to be there again
		f = b.attach(LastExit{})
		b.Catalog(f, catalogOf("demo"))
		time.Sleep(time.Minute)
		b.want(long, "", "model_changed", true)
		b.wantValue(3, "tokens_generated_total", "model=old")
		b.wantValue(0, "failed_inferences_total", "model=old")
		long.Settle(Failed)
		b.wantValue(1, "failed_inferences_total", "model=old", "error_type=model_changed")
		time.Sleep(2 * sweepEvery)
		for _, name := range []string{"tokens_generated_total", "failed_inferences_total", "llm_request_finish_total", "llm_request_phase_seconds"} {
			if n := b.series(name, "old"); n != 0 {
				t.Errorf("%d series of %s are left", n, name)
			}
		}
		if b.series("tokens_generated_total", "demo") == 0 {
			t.Error("the series of an installed model went, too")
		}
	})
}

// series counts those of a model.
func (b *bench) series(name, model string) int {
	families, err := b.m.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if l.GetName() == "model" && l.GetValue() == model {
					n++
				}
			}
		}
	}
	return n
}
