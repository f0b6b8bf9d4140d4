//go:build llama

package llama

import (
	"cmp"
	"fmt"
	"slices"

	"tandem/engine/batch"
)

// fillBatch writes the slices into the batch and notes their places. It returns the number of tokens. What would crash
// the library is left out: a slice with an error.
func (b *Base) fillBatch(list []batch.Slice) (n int, err error) {
	if err := b.checkSlices(list); err != nil {
		return 0, err
	}
	b.places = slices.Grow(b.places[:0], len(list))[:len(list)]
	order := b.batchOrder(list)
	b.findGaps(list, order)
	gaps := b.gaps
	for _, i := range order {
		s := &list[i]
		if s.Err != nil {
			continue
		}
		for ; len(gaps) > 0 && gaps[0].seq < s.Seq; gaps = gaps[1:] {
			b.batch.addGap(n, gaps[0], b.gapFiller())
			n++
		}
		b.places[i] = n
		n += b.batch.add(n, s)
	}
	return n, nil
}

// gapFiller is a token that every model can compute.
func (b *Base) gapFiller() batch.Token { return batch.Token(max(0, int(b.vocab.bos))) }

func (s *batchArrays) addGap(n int, g gapToken, t batch.Token) {
	s.token[n], s.pos[n], s.seq[n], s.output[n] = t, int32(g.pos), int32(g.seq), 0
}

// checkSlices gives an error to each slice that can't be computed, and returns one when the others are too much.
func (b *Base) checkSlices(list []batch.Slice) error {
	tokens, outputs := 0, 0
	for i := range list {
		s := &list[i]
		if s.Err == nil {
			s.Err = b.checkSlice(s)
		}
		if s.Err != nil {
			continue
		}
		if tokens += len(s.Tokens); tokens > len(b.batch.token) {
			return fmt.Errorf("a step of more than %d tokens", len(b.batch.token))
		}
		if outputs += len(s.Score.Targets) + 1; outputs > b.limits.Sequences+batch.MaxScoredTokens {
			return fmt.Errorf("a step with more than %d log-probabilities of prompts", batch.MaxScoredTokens)
		}
	}
	return nil
}

// batchOrder is the order of the slices in the batch. With streams it is that of the sequences: one pass computes those
// whose numbers follow each other, as they come in the batch.
func (b *Base) batchOrder(list []batch.Slice) []int {
	b.order = b.order[:0]
	for i := range list {
		b.order = append(b.order, i)
	}
	if b.limits.StreamCells > 0 {
		slices.SortFunc(b.order, func(i, k int) int { return cmp.Compare(list[i].Seq, list[k].Seq) })
	}
	return b.order
}

// add writes a slice at place n and returns how many tokens it has.
func (s *batchArrays) add(n int, from *batch.Slice) int {
	for k, t := range from.Tokens {
		s.token[n+k], s.pos[n+k], s.seq[n+k], s.output[n+k] = t, int32(from.Start+k), int32(from.Seq), 0
	}
	for k := range from.Score.Targets {
		s.output[n+from.Score.After+k] = 1
	}
	if from.Sampler != nil {
		s.output[n+len(from.Tokens)-1] = 1
	}
	return len(from.Tokens)
}
