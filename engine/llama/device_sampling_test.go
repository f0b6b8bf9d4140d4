//go:build llama

package llama

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// candidateChains are chains whose draws candidates may decide.
var candidateChains = map[string]batch.Sampling{
	"greedy":             {},
	"greedy, penalties":  {RepeatPenalty: 1.3, PresencePenalty: 0.5, FrequencyPenalty: 0.2, PenaltyWindow: 64},
	"greedy, bans":       {LogitBias: map[batch.Token]float32{3: -100, 9: -1}, RepeatPenalty: 1.1, PenaltyWindow: 8},
	"top-k":              {Temperature: 0.8, TopK: 40, Seed: 2},
	"top-k, hot":         {Temperature: 3, TopK: 100, Seed: 2},
	"top-k, top-p":       {Temperature: 0.8, TopK: 40, TopP: 0.95, Seed: 3},
	"defaults":           {Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1.1, PenaltyWindow: 64, Seed: 4},
	"top-k 1":            {Temperature: 1, TopK: 1},
	"min-p":              {Temperature: 1.5, MinP: 0.1, Seed: 6},
	"min-p and a ban":    {Temperature: 1, MinP: 0.2, LogitBias: map[batch.Token]float32{5: -3}, Seed: 7, Choice: 2},
	"frequency, a chain": {Temperature: 0.9, TopK: 20, TopP: 0.9, MinP: 0.02, FrequencyPenalty: 0.4, PenaltyWindow: 64, Seed: 8},
}

func TestChainsThatNeedWholeRows(t *testing.T) {
	for name, sampling := range map[string]batch.Sampling{
		"temperature":                   {Temperature: 1},
		"top-p":                         {Temperature: 0.7, TopP: 0.9},
		"top-p and min-p":               {Temperature: 0.7, TopP: 0.9, MinP: 0.1},
		"top-k of all candidates":       {Temperature: 1, TopK: candidatesOfARow},
		"top-k of the vocabulary":       {Temperature: 1, TopK: 5000},
		"log-probabilities":             {Logprobs: true},
		"top log-probabilities":         {Temperature: 1, TopK: 5, TopLogprobs: 1},
		"a bias upwards":                {LogitBias: map[batch.Token]float32{3: 1}},
		"a penalty that rewards":        {PresencePenalty: -0.5, PenaltyWindow: 64},
		"another":                       {FrequencyPenalty: -0.5, PenaltyWindow: 64},
		"a repeat penalty that rewards": {RepeatPenalty: 0.9, PenaltyWindow: 64},
	} {
		if newTestSampler(t, sampling, nil).mayDrawFromCandidates(candidatesOfARow, 5000) {
			t.Errorf("%s: candidates would decide", name)
		}
	}
}

// Whatever rows look like, with many equal logits, forbidden ones and no number: candidates give the draw of the row,
// or say that they don't decide it.
func TestCandidatesGiveTheDrawOfTheRow(t *testing.T) {
	const vocabulary = 3000
	rows := map[string]func(r *rand.Rand) []float32{
		"peaked": func(r *rand.Rand) []float32 { return randomRow(r, vocabulary, 3) },
		"flat":   func(r *rand.Rand) []float32 { return randomRow(r, vocabulary, 0.1) },
		"many equal": func(r *rand.Rand) []float32 {
			row := randomRow(r, vocabulary, 4)
			for i := range row {
				row[i] = float32(math.Round(float64(row[i])))
			}
			return row
		},
		"few allowed": func(r *rand.Rand) []float32 {
			row := randomRow(r, vocabulary, 3)
			for i := range row {
				if i%100 != 3 {
					row[i] = float32(math.Inf(-1))
				}
			}
			return row
		},
	}
	for chain, sampling := range candidateChains {
		for form, row := range rows {
			t.Run(chain+", "+form, func(t *testing.T) {
				r := rand.New(rand.NewPCG(7, 8))
				decided, draws := 0, 60
				for index := range draws {
					row := row(r)
					window := make([]batch.Token, 64)
					for i := range window {
						window[i] = batch.Token(r.IntN(vocabulary))
					}
					for i, t := range largestOf(r, row)[:8] { // what was said before is likely again
						window[i] = t
					}
					s := newTestSampler(t, sampling, window)
					if !s.mayDrawFromCandidates(candidatesOfARow, vocabulary) {
						t.Fatal("the chain needs rows")
					}
					want, err := s.drawFrom(row, index)
					if err != nil {
						t.Fatal(err)
					}
					tokens := largestOf(r, row)[:candidatesOfARow]
					r.Shuffle(len(tokens), func(i, j int) { tokens[i], tokens[j] = tokens[j], tokens[i] })
					logits := make([]float32, len(tokens))
					for i, t := range tokens {
						logits[i] = row[t]
					}
					got, enough := s.drawFromCandidates(tokens, logits, vocabulary, index)
					if !enough {
						continue
					}
					decided++
					if got.Token != want.Token || got.Margin != want.Margin {
						t.Fatalf("draw %d: %+v, from the row %+v", index, got, want)
					}
				}
				least := draws * 9 / 10
				if form == "many equal" {
					least = 1
				}
				if form == "flat" && (chain == "min-p" || chain == "min-p and a ban" || chain == "top-k, hot") {
					least = 0
				}
				if decided < least {
					t.Errorf("candidates decided %d of %d draws", decided, draws)
				}
			})
		}
	}
}

// largestOf is the tokens by their logits; those of equal ones in any order.
func largestOf(r *rand.Rand, row []float32) []batch.Token {
	order := make([]batch.Token, len(row))
	for i, at := range r.Perm(len(row)) {
		order[i] = batch.Token(at)
	}
	slices.SortStableFunc(order, func(a, b batch.Token) int {
		switch {
		case row[a] > row[b]:
			return -1
		case row[a] < row[b]:
			return 1
		}
		return 0
	})
	return order
}

func TestCandidatesThatAreNoNumbersDecideNothing(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		tokens []batch.Token
		logits []float32
	}{
		"NaN":                    {[]batch.Token{1, 2, 3}, []float32{5, nan, 1}},
		"infinite":               {[]batch.Token{1, 2, 3}, []float32{5, inf, 1}},
		"none can be drawn":      {[]batch.Token{1, 2}, []float32{-inf, -inf}},
		"outside the vocabulary": {[]batch.Token{1, 100, 3}, []float32{5, 2, 1}},
		"a negative token":       {[]batch.Token{-1, 2, 3}, []float32{5, 2, 1}},
		"none":                   {},
	} {
		for _, sampling := range []batch.Sampling{{}, {Temperature: 1, TopK: 2}, {Temperature: 1, MinP: 0.5}} {
			if d, enough := newTestSampler(t, sampling, nil).drawFromCandidates(c.tokens, c.logits, 100, 0); enough {
				t.Errorf("%s, %+v: drew %+v", name, sampling, d)
			}
		}
	}
}

// batchRequest is an answer of a test: it comes in a step, and takes so many tokens whatever they are.
type batchRequest struct {
	prompt   []batch.Token
	sampling batch.Sampling
	from     int // step
	tokens   int
	known    []batch.Token // of an answer that goes on after a restart
}

// batchResult is what came of requests, and how many draws the device's candidates decided.
type batchResult struct {
	answers  [][]batch.Token
	margins  [][]float32
	draws    int
	onDevice int
	repeated int // steps
	perStep  []int
}

// answerTogether decodes all requests in one batch.
func answerTogether(t *testing.T, base *Base, executor *testExecutor, requests []batchRequest) batchResult {
	t.Helper()
	out := batchResult{answers: make([][]batch.Token, len(requests)), margins: make([][]float32, len(requests))}
	samplers := make([]batch.Sampler, len(requests))
	for i, r := range requests {
		s, err := base.NewSampler(r.sampling, r.prompt, r.known)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		samplers[i] = s
		out.answers[i] = slices.Clone(r.known)
	}
	defer executor.run(func() {
		for i := range requests {
			base.Truncate(i, 0)
		}
	})
	filled := make([]int, len(requests))
	for step := 0; ; step++ {
		var parts []batch.Slice
		var of []int
		waiting := false
		for i, r := range requests {
			waiting = waiting || step < r.from
			if step < r.from || len(out.answers[i]) >= r.tokens {
				continue
			}
			all := slices.Concat(r.prompt, out.answers[i])
			parts = append(parts, batch.Slice{Seq: i, Start: filled[i], Tokens: all[filled[i]:], Sampler: samplers[i], Index: len(out.answers[i])})
			of = append(of, i)
		}
		if len(parts) == 0 && !waiting {
			return out
		}
		var err error
		executor.run(func() { err = base.Step(parts) })
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for k, p := range parts {
			if p.Err != nil {
				t.Fatalf("step %d, request %d: %v", step, of[k], p.Err)
			}
			i := of[k]
			filled[i] += len(p.Tokens)
			out.answers[i], out.margins[i] = append(out.answers[i], p.Draw.Token), append(out.margins[i], p.Draw.Margin)
		}
		device := base.DeviceDraws()
		out.draws, out.onDevice = out.draws+len(parts), out.onDevice+device.Draws
		out.perStep = append(out.perStep, device.Draws)
		if device.Repeated {
			out.repeated++
		}
	}
}

// samplingBases loads a model twice: one whose device finds candidates, and one whose rows come to the host.
func samplingBases(t *testing.T, device, path string) (on, off *Base, onExecutor, offExecutor *testExecutor) {
	t.Helper()
	load := func(way DeviceSampling) (*Base, *testExecutor) {
		change := func(o *Options) { o.DeviceSampling = way }
		b, executor := gpuBackend(t, device, change)
		return loadFile(t, b, path, func(s *models.BaseSpec) { s.Parallel = 16 }), executor
	}
	on, onExecutor = load(DeviceSamplingOn)
	off, offExecutor = load(DeviceSamplingOff)
	return on, off, onExecutor, offExecutor
}

// chainRequests is a request for each chain, one after the other so that prompts and answers meet in steps.
func chainRequests(t *testing.T, base *Base, tokens int) (requests []batchRequest) {
	t.Helper()
	for i, name := range slices.Sorted(maps.Keys(candidateChains)) {
		prompt := render(t, base, fmt.Sprintf("What is the capital of France? Tell me %d facts about it.", i))
		requests = append(requests, batchRequest{prompt: prompt, sampling: candidateChains[name], from: i, tokens: tokens})
	}
	return requests
}

func compareAnswers(t *testing.T, on, off batchResult) {
	t.Helper()
	for i := range off.answers {
		if !slices.Equal(on.answers[i], off.answers[i]) || !slices.Equal(on.margins[i], off.margins[i]) {
			t.Errorf("request %d: with candidates %v, from rows %v", i, on.answers[i], off.answers[i])
		}
	}
	if off.onDevice > 0 {
		t.Errorf("%d draws from candidates with BACKEND_SAMPLING=off", off.onDevice)
	}
}

func TestSamplingOnTheDeviceGivesTheSameTokens(t *testing.T) {
	for _, device := range []string{"cpu", "TestGPU0", "testgpu"} {
		t.Run(device, func(t *testing.T) {
			on, off, onExecutor, offExecutor := samplingBases(t, device, demoFile(t, "demo-q8_0.gguf"))
			requests := chainRequests(t, on, 60)
			a, b := answerTogether(t, on, onExecutor, requests), answerTogether(t, off, offExecutor, requests)
			compareAnswers(t, a, b)
			if a.onDevice < a.draws*8/10 {
				t.Errorf("candidates decided %d of %d draws, %d steps were computed twice", a.onDevice, a.draws, a.repeated)
			}
			for i := range requests { // as after a restart of the engine
				requests[i].known = a.answers[i][:20]
			}
			a, b = answerTogether(t, on, onExecutor, requests), answerTogether(t, off, offExecutor, requests)
			compareAnswers(t, a, b)
			if a.onDevice < a.draws*8/10 {
				t.Errorf("after a restart candidates decided %d of %d draws, %d steps were computed twice", a.onDevice, a.draws, a.repeated)
			}
		})
	}
}

func TestSamplingOnTheDeviceWithARealModel(t *testing.T) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		t.Skip("SKIPPED without SmolLM2; run: export SMOLLM2=$(scripts/models/fetch.sh smollm2)")
	}
	on, off, onExecutor, offExecutor := samplingBases(t, "TestGPU0", path)
	var requests []batchRequest
	for i, name := range []string{"greedy", "defaults", "min-p"} {
		prompt := render(t, on, fmt.Sprintf("Name %d rivers.", i+2))
		requests = append(requests, batchRequest{prompt: prompt, sampling: candidateChains[name], from: i, tokens: 8})
	}
	a, b := answerTogether(t, on, onExecutor, requests), answerTogether(t, off, offExecutor, requests)
	compareAnswers(t, a, b)
	if a.onDevice < a.draws*8/10 {
		t.Errorf("candidates decided %d of %d draws, %d steps were computed twice", a.onDevice, a.draws, a.repeated)
	}
}

// Who needs whole rows gets them, and so does everybody in the batch, until nobody has needed any for a while.
func TestABatchInWhichSomebodyNeedsRows(t *testing.T) {
	on, off, onExecutor, offExecutor := samplingBases(t, "TestGPU0", demoFile(t, "demo-q8_0.gguf"))
	prompt := render(t, on, france)
	requests := []batchRequest{
		{prompt: prompt, sampling: candidateChains["greedy"], tokens: 150},
		{prompt: prompt, sampling: candidateChains["defaults"], tokens: 150},
		{prompt: prompt, sampling: batch.Sampling{Temperature: 0.8, TopP: 0.9, Seed: 5}, from: 20, tokens: 10},
		{prompt: prompt, sampling: batch.Sampling{Temperature: 1, Seed: 6}, from: 40, tokens: 5},
	}
	a, b := answerTogether(t, on, onExecutor, requests), answerTogether(t, off, offExecutor, requests)
	compareAnswers(t, a, b)
	const lastRows = 44
	for step, draws := range a.perStep {
		fromRows := step >= 20 && step <= lastRows+stepsBeforeAttach
		if fromRows != (draws == 0) {
			t.Errorf("step %d: %d draws from candidates", step, draws)
		}
	}
	if a.repeated > 0 {
		t.Errorf("%d steps were computed twice", a.repeated)
	}
}

// A step whose candidates don't decide a draw is computed again; an answer to which that happens twice gets rows.
func TestCandidatesThatAreTooFew(t *testing.T) {
	on, off, onExecutor, offExecutor := samplingBases(t, "TestGPU0", demoFile(t, "demo-q8_0.gguf"))
	prompt := render(t, on, france)
	requests := []batchRequest{
		{prompt: prompt, sampling: batch.Sampling{Temperature: 1, MinP: 1e-30, Seed: 3}, tokens: 150},
		{prompt: prompt, sampling: candidateChains["defaults"], tokens: 150},
	}
	a, b := answerTogether(t, on, onExecutor, requests), answerTogether(t, off, offExecutor, requests)
	compareAnswers(t, a, b)
	if a.repeated != shortDrawsMax || a.onDevice != 0 {
		t.Errorf("%d steps were computed twice, want %d; %d draws from candidates", a.repeated, shortDrawsMax, a.onDevice)
	}
}

func TestWhereTheDeviceSamples(t *testing.T) {
	on := func(o *Options) { o.DeviceSampling = DeviceSamplingOn }
	byDevice := models.Sampling{Place: models.SamplingDevice, DecidedBy: "BACKEND_SAMPLING=on"}
	for name, c := range map[string]struct {
		device string
		change func(*Options)
		want   models.Sampling
	}{
		"on, a GPU":                   {"TestGPU0", on, byDevice},
		"auto, the output on the CPU": {"TestGPU0", func(o *Options) { o.GPULayers = 0 }, hostSamples("the CPU computes the logits")},
		"on, some layers on a GPU":    {"TestGPU0", func(o *Options) { on(o); o.GPULayers = 2 }, byDevice},
		"auto, the CPU":               {"cpu", nil, hostSamples("the CPU computes the logits")},
		"on, the CPU":                 {"cpu", on, byDevice},
		"off, a GPU":                  {"TestGPU0", func(o *Options) { o.DeviceSampling = DeviceSamplingOff }, hostSamples("BACKEND_SAMPLING=off")},
		"on, deterministic":           {"cpu", func(o *Options) { on(o); o.Deterministic = true }, byDevice},
	} {
		t.Run(name, func(t *testing.T) {
			b, executor := gpuBackend(t, c.device, c.change)
			base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
			out := answerTogether(t, base, executor, []batchRequest{{prompt: render(t, base, france), tokens: 4}})
			if got := base.Facts().Sampling; got != c.want {
				t.Errorf("sampling %+v, want %+v", got, c.want)
			}
			checkWhoSampled(t, base, out)
		})
	}
}

// checkWhoSampled compares who drew the tokens with what the base says of it.
func checkWhoSampled(t *testing.T, base *Base, out batchResult) {
	t.Helper()
	want := out.draws
	if base.Facts().Sampling.Place == models.SamplingHost {
		want = 0
	}
	if out.onDevice != want {
		t.Errorf("%d of %d draws from candidates; sampling %+v", out.onDevice, out.draws, base.Facts().Sampling)
	}
}

// With auto the way is taken that was faster when the model was loaded, whichever that is.
func TestTheFasterWayToSampleIsTaken(t *testing.T) {
	b, executor := gpuBackend(t, "TestGPU0", nil)
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	sampling := base.Facts().Sampling
	sequences, device, host := readTimes(t, sampling.DecidedBy)
	if faster := device <= host; sequences != 8 || faster != (sampling.Place == models.SamplingDevice) {
		t.Errorf("sampling %+v", sampling)
	}
	checkWhoSampled(t, base, answerTogether(t, base, executor, []batchRequest{{prompt: render(t, base, france), tokens: 4}}))
}

// readTimes reads what fasterSampling says.
func readTimes(t *testing.T, why string) (sequences int, device, host time.Duration) {
	t.Helper()
	var a, b string
	if _, err := fmt.Sscanf(why, "steps of %d sequences took %s with candidates from the device and %s with whole rows", &sequences, &a, &b); err != nil {
		t.Fatalf("%q: %v", why, err)
	}
	device, errA := time.ParseDuration(a)
	host, errB := time.ParseDuration(b)
	if errA != nil || errB != nil {
		t.Fatalf("%q: %v, %v", why, errA, errB)
	}
	return sequences, device, host
}
