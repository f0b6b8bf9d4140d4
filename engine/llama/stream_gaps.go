//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import "tandem/engine/batch"

// With streams one pass computes sequences whose numbers follow each other, a token of each, and then what is left of
// those with several. Each pass reads all weights, so a step of sequences that don't lie side by side would cost
// several times as much. A sequence between two that have one token therefore gets a token, too, whose result is thrown
// away and whose cell is forgotten after the step. That costs a row of the pass, and the cells of that sequence: on a
// CPU about a third of a pass of one sequence, on a GPU less (not measured).
const (
	mostGapOnGPU = 32
	mostGapOnCPU = 3
)

// streamRows is what a sequence has in a step.
type streamRows struct{ seq, tokens int }

// gapToken is a token of no use at the end of a sequence.
type gapToken struct{ seq, pos int }

// gapSequences returns the sequences that get a token of no use: those between two with one token, if they are at most
// so many and none of them is full. rows are in the order of the sequences.
func gapSequences(rows []streamRows, most int, full func(seq int) bool) []int {
	var gaps []int
	last := -1
	for i, r := range rows {
		if r.tokens != 1 {
			continue
		}
		if last >= 0 && r.seq-rows[last].seq-(i-last) <= most {
			gaps = appendGap(gaps, rows[last:i+1], full)
		}
		last = i
	}
	return gaps
}

// appendGap appends the sequences that are missing in rows, or nothing when one of them is full.
func appendGap(gaps []int, rows []streamRows, full func(seq int) bool) []int {
	before := len(gaps)
	for i, r := range rows[1:] {
		for seq := rows[i].seq + 1; seq < r.seq; seq++ {
			if full(seq) {
				return gaps[:before]
			}
			gaps = append(gaps, seq)
		}
	}
	return gaps
}

// findGaps notes in b.gaps the tokens of no use that a step of these slices gets.
func (b *Base) findGaps(list []batch.Slice, order []int) {
	b.gaps = b.gaps[:0]
	if b.limits.StreamCells == 0 || !b.limits.Prefix || len(list) < 2 {
		return
	}
	most, tokens := mostGapOnGPU, 0
	if b.hostComputes() {
		most = mostGapOnCPU
	}
	b.rows = b.rows[:0]
	for _, i := range order {
		if list[i].Err == nil {
			b.rows = append(b.rows, streamRows{list[i].Seq, len(list[i].Tokens)})
			tokens += len(list[i].Tokens)
		}
	}
	next := func(seq int) int { return b.lastPosition(seq) + 1 }
	for _, seq := range gapSequences(b.rows, most, func(seq int) bool { return next(seq) >= b.limits.SequenceMax }) {
		b.gaps = append(b.gaps, gapToken{seq, next(seq)})
		if b.slots != nil {
			b.slots.follow(seq)
		}
	}
	if tokens+len(b.gaps) > len(b.batch.token) {
		b.gaps = b.gaps[:0]
	}
}

// forgetGaps removes the cells of the tokens of no use.
func (b *Base) forgetGaps() {
	for _, g := range b.gaps {
		C.llama_memory_seq_rm(b.memory, C.llama_seq_id(g.seq), C.llama_pos(g.pos), -1)
	}
}
