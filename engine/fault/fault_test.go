package fault

import (
	"context"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/mock"
	"tandem/engine/models"
)

// abortRecorder is a mock backend that records why it would have aborted.
func abortRecorder(o Options) (b *Backend, aborts *[]string) {
	aborts = new([]string)
	o.Abort = func(why string) { *aborts = append(*aborts, why) }
	return Wrap(mock.New(mock.Options{}), o), aborts
}

// doneSink closes done at the first summary.
type doneSink struct{ done chan struct{} }

func (e doneSink) Emit(s *batch.Step) bool {
	if len(s.Done) > 0 {
		close(e.done)
	}
	return true
}

// answer lets a loaded base answer a prompt.
func answer(t *testing.T, base models.Base, prompt string, generated int) {
	t.Helper()
	p, err := base.Render(t.Context(), models.Input{Prompt: prompt})
	if err != nil {
		t.Fatal(err)
	}
	e := batch.NewExecutor(batch.Options{})
	defer e.Close(context.Background())
	if err := e.Attach(t.Context(), mock.Model, base.(batch.Runner)); err != nil {
		t.Fatal(err)
	}
	sink := doneSink{make(chan struct{})}
	if err := e.Submit(&batch.Request{ID: 1, Base: mock.Model, Prompt: p.Tokens, Generated: p.Tokens[:generated], MaxNewTokens: 5, Sink: sink}); err != nil {
		t.Fatal(err)
	}
	<-sink.done
}

func TestMarkerInThePromptKills(t *testing.T) {
	for name, test := range map[string]struct {
		marker    string
		generated int
		aborts    bool
	}{
		"off":                        {"", 0, false},
		"other prompt":               {"something else", 0, false},
		"first token":                {"kill switch", 0, true},
		"an answer that is replayed": {"kill switch", 2, true},
	} {
		b, aborts := abortRecorder(Options{Marker: test.marker})
		base, err := b.LoadBase(t.Context(), models.BaseSpec{Name: mock.Model}, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer(t, base, "use the kill switch now, please do", test.generated)
		if got := len(*aborts) > 0; got != test.aborts {
			t.Errorf("%s: died of %q", name, *aborts)
		}
	}
}

func TestLoadsThatKill(t *testing.T) {
	for name, test := range map[string]struct {
		load      string
		base, one int // aborts in the load of the base, of version v1.0
	}{
		"base":          {"demo", 1, 0},
		"version":       {"demo@v1.0", 0, 1},
		"other version": {"demo@v2.0", 0, 0},
		"other model":   {"acme/demo", 0, 0},
	} {
		b, aborts := abortRecorder(Options{Loads: []string{test.load}})
		base, err := b.LoadBase(t.Context(), models.BaseSpec{Name: mock.Model}, func(models.Progress) {})
		if err != nil {
			t.Fatal(err)
		}
		if got := min(len(*aborts), 1); got != test.base {
			t.Errorf("%s: the load of the base died of %q", name, *aborts)
		}
		*aborts = nil
		if _, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: "v1.0"}); err != nil {
			t.Fatal(err)
		}
		if len(*aborts) != test.one {
			t.Errorf("%s: the load of the version died of %q", name, *aborts)
		}
	}
}

func TestMarkerInATextToEmbedKills(t *testing.T) {
	for text, want := range map[string]int{"kill switch": 1, "another text": 0} {
		b, aborts := abortRecorder(Options{Marker: "kill switch"})
		base, err := b.LoadBase(t.Context(), models.BaseSpec{Name: mock.Model}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := base.Tokenize(t.Context(), text, true, 100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens); err != nil {
			t.Fatal(err)
		}
		if len(*aborts) != want {
			t.Errorf("%q: aborted %d times, want %d", text, len(*aborts), want)
		}
	}
}
