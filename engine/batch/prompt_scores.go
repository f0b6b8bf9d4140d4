package batch

import "math"

// MaxScoredTokens is how many targets the Scores of a step have at most, all sequences together. Each needs its own row
// of logits, which is as long as the vocabulary.
const MaxScoredTokens = 64

// wantsScores reports whether log-probabilities of the sequence's prompt are still to be emitted.
func (s *sequence) wantsScores() bool {
	return s.req.PromptLogprobs && len(s.req.Generated) == 0 && s.scored < len(s.req.Prompt)
}

// score is what a step that feeds the next n tokens computes of the prompt's log-probabilities. The first token has
// none, and those that were emitted before a preemption aren't computed again.
func (s *sequence) score(n int) Score {
	if !s.wantsScores() {
		return Score{}
	}
	from, to := max(s.scored, 1), min(s.filled+n+1, len(s.req.Prompt))
	if from >= to {
		return Score{}
	}
	return Score{Targets: s.req.Prompt[from:to], After: from - 1 - s.filled, Top: s.req.Sampling.TopLogprobs}
}

// reusableTokens is how many of the sequence's tokens may come from the cache: those before the first whose logits are
// needed.
func (s *sequence) reusableTokens() int {
	n := s.prefillTokensLeft() + s.filled
	if s.answerTokens() == 0 {
		n--
	}
	if s.wantsScores() {
		n = min(n, max(s.scored-1, 0))
	}
	return n
}

// takeScores emits the log-probabilities that a step gave for a part of the sequence's prompt.
func (e *Executor) takeScores(b *base, q *sequence, s *Slice) {
	part := PromptPart{ID: q.req.ID, Attempt: q.req.Attempt, From: q.scored}
	if q.scored == 0 {
		first := q.req.Prompt[0]
		part.Tokens = append(part.Tokens, ScoredToken{Token: first, Piece: b.runner.TokenText(first), Logprob: float32(math.NaN())})
	}
	for i, t := range s.Score.Targets {
		part.Tokens = append(part.Tokens, ScoredToken{
			Token: t, Piece: b.runner.TokenText(t), Logprob: s.Scores[i].Logprob, Top: withTexts(b.runner, s.Scores[i].Top),
		})
	}
	if len(part.Tokens) == 0 {
		return
	}
	q.scored += len(part.Tokens)
	step := e.outbox.stepFor(q.req.Sink)
	step.Prompts = append(step.Prompts, part)
}

// withTexts sets the texts of tokens.
func withTexts(r Runner, top []TopLogprob) []TopLogprob {
	for i := range top {
		top[i].Text = r.TokenText(top[i].Token)
	}
	return top
}
