//go:build llama

package llama

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"tandem/engine/batch"
)

func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func mix32(x uint32) uint32 {
	x = (x ^ x>>16) * 0x21f0aaad
	x = (x ^ x>>15) * 0xd35a2d97
	return x ^ x>>15
}

// noise is the Gumbel noise of one token, implemented a second time: a change of it would change every seeded answer.
func noise(seed uint64, choice uint32, index int, token batch.Token) float64 {
	k := mix64(mix64(seed^mix64(0x7464<<32|uint64(choice))) ^ mix64(uint64(index)))
	h := mix32(mix32(uint32(token)^uint32(k)) + uint32(k>>32))
	return -math.Log(-math.Log((float64(h) + 0.5) / (1 << 32)))
}

// referenceDraw draws by sorting everything in double precision. topP is a parameter of its own, since a sum in another
// order may cut elsewhere.
func referenceDraw(logits []float32, sampling batch.Sampling, window []batch.Token, index int, topP float64) batch.Draw {
	adjusted := make([]float64, len(logits))
	sum, most := 0.0, float64(slices.Max(logits))
	for i, l := range logits {
		adjusted[i] = float64(l)
		sum += math.Exp(float64(l) - most)
	}
	for t, x := range sampling.LogitBias {
		adjusted[t] += float64(x)
	}
	count := map[batch.Token]int{}
	for _, t := range window[max(0, len(window)-sampling.PenaltyWindow):] {
		count[t]++
	}
	for t, n := range count {
		if sampling.RepeatPenalty > 0 {
			if adjusted[t] > 0 {
				adjusted[t] /= float64(sampling.RepeatPenalty)
			} else {
				adjusted[t] *= float64(sampling.RepeatPenalty)
			}
		}
		adjusted[t] -= float64(n)*float64(sampling.FrequencyPenalty) + float64(sampling.PresencePenalty)
	}
	order := make([]batch.Token, len(logits))
	for i := range order {
		order[i] = batch.Token(i)
	}
	slices.SortStableFunc(order, func(a, b batch.Token) int {
		switch {
		case adjusted[a] > adjusted[b]:
			return -1
		case adjusted[a] < adjusted[b]:
			return 1
		}
		return 0
	})
	score := func(t batch.Token) float64 { return adjusted[t] }
	if sampling.Temperature > 0 {
		order = keepCandidates(order, adjusted, sampling, topP)
		score = func(t batch.Token) float64 {
			return adjusted[t]/float64(sampling.Temperature) + noise(sampling.Seed, sampling.Choice, index, t)
		}
	}
	best, second := batch.Token(-1), math.Inf(-1)
	for _, t := range order {
		switch {
		case best < 0 || score(t) > score(best):
			if best >= 0 {
				second = max(second, score(best))
			}
			best = t
		default:
			second = max(second, score(t))
		}
	}
	return batch.Draw{Token: best, Margin: float32(score(best) - second), Logprob: float32(float64(logits[best]) - most - math.Log(sum))}
}

func keepCandidates(order []batch.Token, adjusted []float64, sampling batch.Sampling, topP float64) []batch.Token {
	most := adjusted[order[0]]
	if sampling.TopK > 0 && sampling.TopK < len(order) {
		order = order[:sampling.TopK]
	}
	if topP < 1 {
		total, sum := 0.0, 0.0
		for _, t := range order {
			total += math.Exp(adjusted[t] - most)
		}
		for i, t := range order {
			if sum += math.Exp(adjusted[t] - most); sum >= topP*total {
				order = order[:i+1]
				break
			}
		}
	}
	for sampling.MinP > 0 && len(order) > 1 && adjusted[order[len(order)-1]] < most+math.Log(float64(sampling.MinP)) {
		order = order[:len(order)-1]
	}
	return order
}

func randomRow(r *rand.Rand, n int, spread float64) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = float32(r.NormFloat64() * spread)
	}
	return row
}

func newTestSampler(t testing.TB, sampling batch.Sampling, window []batch.Token) *Sampler {
	s := &Sampler{sampling: sampling, handle: newSamplerChain(sampling, nil)}
	t.Cleanup(s.Close)
	for _, token := range window {
		if err := s.Accept(token); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestDrawsEqualASortInDoublePrecision(t *testing.T) {
	chains := map[string]batch.Sampling{
		"greedy":            {},
		"greedy, penalties": {RepeatPenalty: 1.3, PresencePenalty: 0.5, FrequencyPenalty: 0.2, PenaltyWindow: 64},
		"greedy, bias":      {LogitBias: map[batch.Token]float32{3: 20, 9: -100}, RepeatPenalty: 1.1, PenaltyWindow: 8},
		"temperature":       {Temperature: 1.3, Seed: 1},
		"top-k":             {Temperature: 0.8, TopK: 40, Seed: 2},
		"top-k, top-p":      {Temperature: 0.8, TopK: 40, TopP: 0.95, Seed: 3},
		"large top-k":       {Temperature: 1, TopK: 900, TopP: 0.9, Seed: 4},
		"top-p":             {Temperature: 0.7, TopP: 0.9, Seed: 5},
		"min-p":             {Temperature: 1.5, MinP: 0.05, Seed: 6},
		"all":               {Temperature: 0.9, TopK: 50, TopP: 0.9, MinP: 0.02, RepeatPenalty: 1.1, PenaltyWindow: 64, Seed: 7, Choice: 2},
		"top-k 1":           {Temperature: 1, TopK: 1},
	}
	for name, sampling := range chains {
		for _, n := range []int{7, 1000, 33000} {
			for _, spread := range []float64{0.1, 2, 6} {
				if n > 10000 && spread == 6 {
					continue // the reference sorts all, and the two others go through each branch
				}
				t.Run(fmt.Sprintf("%s, %d tokens, spread %g", name, n, spread), func(t *testing.T) {
					compareDraws(t, sampling, n, spread)
				})
			}
		}
	}
}

// logprobTolerance is the worst of the cheap powers that the log-sum-exp is made of, and of single precision.
const logprobTolerance = 2e-4

func compareDraws(t *testing.T, sampling batch.Sampling, n int, spread float64) {
	r := rand.New(rand.NewPCG(uint64(n), uint64(spread*10)))
	if n < 10 {
		sampling.LogitBias = nil
	}
	window := make([]batch.Token, 80)
	for i := range window {
		window[i] = batch.Token(r.IntN(min(n, 100)))
	}
	unasked := newTestSampler(t, sampling, window)
	sampling.Logprobs = true
	s := newTestSampler(t, sampling, window)
	places := 3
	if n > 10000 {
		places = 1
	}
	for index := range places {
		row := randomRow(r, n, spread)
		before := slices.Clone(row)
		got, err := s.drawFrom(row, index)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(row, before) {
			t.Fatal("the row wasn't restored")
		}
		if plain, err := unasked.drawFrom(row, index); err != nil || plain.Token != got.Token || plain.Margin != got.Margin || !math.IsNaN(float64(plain.Logprob)) {
			t.Errorf("place %d: drew %+v, %v without log-probabilities, %+v with them", index, plain, err, got)
		}
		topP := float64(sampling.TopP)
		if topP == 0 {
			topP = 1
		}
		want := referenceDraw(row, sampling, window, index, topP)
		if topP == 1 {
			// nothing to cut
		} else if fewer, more := referenceDraw(row, sampling, window, index, topP-1e-4), referenceDraw(row, sampling, window, index, min(topP+1e-4, 1)); fewer.Token != more.Token {
			continue // rounding may decide which
		}
		if got.Token != want.Token || math.Abs(float64(got.Logprob-want.Logprob)) > logprobTolerance {
			t.Errorf("place %d: drew %+v, want %+v", index, got, want)
		}
		if sampling.TopP == 0 && math.Abs(float64(got.Margin-want.Margin)) > 1e-3 && !(math.IsInf(float64(got.Margin), 1) && math.IsInf(float64(want.Margin), 1)) {
			t.Errorf("place %d: margin %g, want %g", index, got.Margin, want.Margin)
		}
	}
}

func TestDrawsFollowTheDistribution(t *testing.T) {
	row := []float32{2, 1, 0, -1, -2, float32(math.Inf(-1))}
	const draws = 40000
	s := newTestSampler(t, batch.Sampling{Temperature: 1, Seed: 11}, nil)
	counts := make([]float64, len(row))
	for index := range draws {
		d, err := s.drawFrom(row, index)
		if err != nil {
			t.Fatal(err)
		}
		counts[d.Token]++
	}
	sum := 0.0
	for _, l := range row {
		sum += math.Exp(float64(l))
	}
	for i, l := range row {
		p := math.Exp(float64(l)) / sum
		if tolerance := 4.5 * math.Sqrt(p*(1-p)/draws); math.Abs(counts[i]/draws-p) > tolerance {
			t.Errorf("token %d came in %.4f of the draws, want %.4f ± %.4f", i, counts[i]/draws, p, tolerance)
		}
	}
}

func TestTopLogprobsAreTheBestInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	row := randomRow(r, 5000, 3)
	s := newTestSampler(t, batch.Sampling{TopLogprobs: 20}, nil)
	d, err := s.drawFrom(row, 0)
	if err != nil || len(d.Top) != 20 || d.Top[0].Token != d.Token || d.Top[0].Logprob != d.Logprob {
		t.Fatalf("%+v, %v", d, err)
	}
	sorted := slices.Clone(row)
	slices.Sort(sorted)
	for i, top := range d.Top {
		if row[top.Token] != sorted[len(sorted)-1-i] {
			t.Errorf("entry %d is token %d with %g, want logit %g", i, top.Token, row[top.Token], sorted[len(sorted)-1-i])
		}
	}
}

// A sure token has the logarithm of a probability, also where the sum of all of them is rounded.
func TestLogprobsAreNeverPositive(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	s := newTestSampler(t, batch.Sampling{TopLogprobs: 2}, nil)
	for range 500 {
		row := randomRow(r, 600, 0.3)
		row[7] = 20 + 10*r.Float32()
		d, err := s.drawFrom(row, 0)
		if err != nil || d.Token != 7 || d.Logprob > 0 || d.Top[0].Logprob > 0 {
			t.Fatalf("a lead of %g: %+v, %v", row[7], d, err)
		}
	}
}

func TestSmallNoiseSeldomChangesADraw(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	s := newTestSampler(t, batch.Sampling{Temperature: 1, TopK: 40, TopP: 0.95, Seed: 9}, nil)
	const draws, sigma = 2000, 1e-2
	changed, unsafeChanges := 0, 0
	for index := range draws {
		row := randomRow(r, 1000, 3)
		a, errA := s.drawFrom(row, index)
		largest := 0.0
		for i := range row {
			e := r.NormFloat64() * sigma
			largest = max(largest, math.Abs(e))
			row[i] += float32(e)
		}
		b, errB := s.drawFrom(row, index)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Token != b.Token {
			changed++
			if float64(a.Margin) > 2*largest {
				unsafeChanges++ // only possible where the noise changed the set of candidates
			}
		}
	}
	t.Logf("noise of %g changed %d of %d draws, %d of them by another set of candidates", sigma, changed, draws, unsafeChanges)
	if changed > draws/50 {
		t.Errorf("%d of %d draws changed", changed, draws)
	}
}

func TestRowsWithoutAFiniteLogitAreAnError(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, sampling := range []batch.Sampling{{}, {Temperature: 1}, {Temperature: 1, TopK: 2}, {Temperature: 1, TopP: 0.5}} {
		for name, row := range map[string][]float32{"NaN": {nan, nan, nan}, "all forbidden": {inf, inf}} {
			if d, err := newTestSampler(t, sampling, nil).drawFrom(row, 0); err == nil {
				t.Errorf("%s, %+v: drew %+v", name, sampling, d)
			}
		}
		if d, err := newTestSampler(t, sampling, nil).drawFrom([]float32{1, nan, 2, nan}, 0); err != nil || d.Token == 1 || d.Token == 3 {
			t.Errorf("NaN among numbers, %+v: drew %+v, %v", sampling, d, err)
		}
	}
}

func BenchmarkDraw128k(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	const vocabulary = 128256
	peaked, flat := randomRow(r, vocabulary, 2.5), randomRow(r, vocabulary, 0.5)
	for i := range 30 {
		peaked[r.IntN(vocabulary)] = 12 + float32(i)/3
	}
	window := make([]batch.Token, 64)
	for i := range window {
		window[i] = batch.Token(r.IntN(vocabulary))
	}
	for _, c := range []struct {
		name     string
		sampling batch.Sampling
	}{
		{"greedy", batch.Sampling{}},
		{"greedy-logprobs", batch.Sampling{Logprobs: true}},
		{"topk40-topp", batch.Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, Seed: 1}},
		{"topk40-topp-minp-penalties", batch.Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1.1, PenaltyWindow: 64, Seed: 1}},
		{"topp", batch.Sampling{Temperature: 0.8, TopP: 0.95, Seed: 1}},
		{"minp", batch.Sampling{Temperature: 0.8, MinP: 0.05, Seed: 1}},
		{"temperature", batch.Sampling{Temperature: 0.8, Seed: 1}},
	} {
		for name, row := range map[string][]float32{"peaked": peaked, "flat": flat} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				s := newTestSampler(b, c.sampling, window)
				for index := 0; b.Loop(); index++ {
					if _, err := s.drawFrom(row, index); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
