//go:build llama

package llama

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func TestPlanPass(t *testing.T) {
	v1, v2 := &Adapter{name: "v1"}, &Adapter{name: "v2"}
	type job struct {
		tokens, filled int
		adapter        *Adapter
		begun          bool
	}
	waiting := func(tokens int) job { return job{tokens: tokens} }
	roomy := passLimits{sequences: 8, cells: 10000, inParts: true}
	whole := passLimits{sequences: 8, cells: 512}
	for _, c := range []struct {
		name   string
		jobs   []job
		budget int
		limits passLimits
		want   string // job:tokens
	}{
		{"one short text", []job{waiting(5)}, 100, roomy, "0:5"},
		{"a long text alone gets everything", []job{waiting(500)}, 100, roomy, "0:100"},
		{"a long text leaves half to others", []job{waiting(500), waiting(30), waiting(500)}, 100, roomy, "0:50 1:30 2:20"},
		{"and what they don't use", []job{waiting(500), waiting(10)}, 100, roomy, "0:90 1:10"},
		{"a text goes on", []job{{tokens: 120, filled: 100, begun: true}, waiting(30)}, 100, roomy, "0:20 1:30"},
		{"one adapter in a pass", []job{{tokens: 5, adapter: v1}, {tokens: 6, adapter: v2}, {tokens: 7, adapter: v1}}, 100, roomy, "0:5 2:7"},
		{"no sequence is free", []job{{tokens: 300, filled: 100, begun: true}, waiting(5)}, 100, passLimits{cells: 10000, inParts: true}, "0:100"},
		{"no cells for the second, so the third waits as well",
			[]job{{tokens: 300, filled: 280, begun: true}, waiting(600), waiting(5)}, 100, passLimits{sequences: 8, cells: 500, inParts: true}, "0:20"},
		{"the first waits for cells that another adapter's text holds",
			[]job{{tokens: 600, adapter: v2}, {tokens: 300, filled: 100, adapter: v1, begun: true}}, 100, passLimits{sequences: 8, cells: 500, inParts: true}, "1:100"},
		{"whole texts as far as they fit", []job{waiting(40), waiting(70), waiting(30)}, 100, whole, "0:40 2:30"},
		{"a whole text over the budget goes alone", []job{waiting(400), waiting(5)}, 100, whole, "0:400"},
	} {
		var jobs []*embedJob
		at := map[*embedJob]int{}
		for i, j := range c.jobs {
			e := &embedJob{adapter: j.adapter, tokens: make([]batch.Token, j.tokens), filled: j.filled, sequence: -1}
			if j.begun {
				e.sequence = i
			}
			jobs, at[e] = append(jobs, e), i
		}
		var got []string
		for _, p := range planPass(jobs, c.budget, c.limits) {
			got = append(got, fmt.Sprintf("%d:%d", at[p.job], p.tokens))
		}
		if plan := strings.Join(got, " "); plan != c.want {
			t.Errorf("%s: %s, want %s", c.name, plan, c.want)
		}
	}
}

func TestPassBudget(t *testing.T) {
	for _, c := range []struct {
		limit, tokenTime time.Duration
		step, want       int
	}{
		{0, time.Millisecond, 2048, embedStepTokens}, // nobody waits
		{0, time.Millisecond, 100, 100},
		{50 * time.Millisecond, time.Millisecond, 512, 50},
		{50 * time.Millisecond, time.Second, 512, minEmbedTokens}, // texts get on
		{50 * time.Millisecond, time.Microsecond, 512, 512},
		{50 * time.Millisecond, 0, 512, minEmbedTokens}, // not measured yet
	} {
		if got := passBudget(c.limit, c.tokenTime, c.step); got != c.want {
			t.Errorf("limit %s, %s a token, pass of %d: %d tokens, want %d", c.limit, c.tokenTime, c.step, got, c.want)
		}
	}
}

func TestChoosePooling(t *testing.T) {
	const none, mean, cls, last, rank, unspecified = 0, 1, 2, 3, 4, -1
	for _, c := range []struct {
		wanted     models.Pooling
		file       int
		classifier bool
		want       models.Pooling // 0: an error
	}{
		{models.PoolingAuto, unspecified, false, models.PoolingMean},
		{models.PoolingAuto, none, false, models.PoolingMean},
		{models.PoolingAuto, mean, false, models.PoolingMean},
		{models.PoolingAuto, cls, false, models.PoolingCLS},
		{models.PoolingAuto, last, false, models.PoolingLast},
		{models.PoolingAuto, rank, true, models.PoolingRank},
		{models.PoolingAuto, rank, false, models.PoolingMean},
		{models.PoolingLast, cls, false, models.PoolingLast},
		{models.PoolingRank, cls, true, models.PoolingRank},
		{models.PoolingRank, rank, false, 0},
	} {
		got, err := choosePooling(c.wanted, c.file, c.classifier)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

func TestEncoderContextFitsIntoMemory(t *testing.T) {
	const gb = 1 << 30
	for _, c := range []struct {
		name       string
		spec       models.BaseSpec
		trained    int
		vocabulary int
		device     int64
		least      int
		most       int
	}{
		{"as trained", models.BaseSpec{}, 512, 30522, 8 * gb, 512, 512},
		{"as asked for", models.BaseSpec{Context: 128}, 512, 30522, 8 * gb, 128, 128},
		{"the default", models.BaseSpec{}, 1 << 20, 1000, 64 * gb, defaultContext, defaultContext},
		{"a large vocabulary in little memory", models.BaseSpec{}, 8192, 250002, 8 * gb, 1500, 2200},
		{"what the container has left", models.BaseSpec{}, 8192, 250002, gb, 200, 300},
		{"hardly anything", models.BaseSpec{}, 8192, 250002, 1, minEmbedTokens, minEmbedTokens},
	} {
		if got := chooseEncoderContext(c.spec, c.trained, c.vocabulary, 1024, c.device); got < c.least || got > c.most {
			t.Errorf("%s: %d tokens, want %d to %d", c.name, got, c.least, c.most)
		}
	}
}

func TestPooledVectors(t *testing.T) {
	var p pooledVector
	p.add([]float32{1, 5})
	p.add([]float32{5, 3})
	v, err := p.normalised()
	if err != nil || math.Abs(float64(v[0])-0.6) > 1e-6 || math.Abs(float64(v[1])-0.8) > 1e-6 {
		t.Errorf("%v, %v", v, err)
	}
	p.add([]float32{float32(math.NaN()), 0})
	if v, err := p.normalised(); err == nil {
		t.Errorf("with a number that is none: %v", v)
	}
	zero := pooledVector{sum: make([]float64, 3)}
	if v, err := zero.normalised(); err != nil || !slices.Equal(v, []float32{0, 0, 0}) {
		t.Errorf("of nothing: %v, %v", v, err)
	}
}

func TestFillTemplate(t *testing.T) {
	parts := fillTemplate("<s>Q: {query} D: {document}</s>{query}", "{document}", "a {query}")
	var got []string
	for _, p := range parts {
		if len(p.text) > 0 {
			got = append(got, fmt.Sprintf("%v %s", p.fromClient, p.text))
		}
	}
	want := []string{"false <s>Q: ", "true {document}", "false  D: ", "true a {query}", "false </s>", "true {document}"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
