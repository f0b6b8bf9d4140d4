// Package admission estimates whether a new request can be answered in the time it has, from the work that is ahead of
// it and the speed at which the engine was seen to work. It decides only: it holds no requests, starts no goroutine and
// reads no clock; times are passed in.
//
//	tokens as they come ─▶ Estimator ─▶ Decide: admit, or refuse
//	answers as they end ─▶                      └─▶ Promises: when to try again
package admission

import (
	"math"
	"time"
)

// Work is counted in prompt tokens: a prompt token is 1, and a generated one is generatedWeight. In full batches on a
// CPU a 135M model read 360 to 470 prompt tokens a second and generated 216 to 238, so a generated one costs about as
// much as two. The estimates depend little on it, since the speed is measured in the same unit.
const generatedWeight = 2

// Generated is the work of so many generated tokens.
func Generated(tokens int) float64 { return generatedWeight * float64(tokens) }

// Prompt is the work of so many prompt tokens.
func Prompt(tokens int) float64 { return float64(tokens) }

// Size is what a request asks of an engine.
type Size struct {
	PromptTokens float64 // to compute before its next new token
	NewTokens    float64
}

// Work is the work that an engine has with it.
func (s Size) Work() float64 { return s.PromptTokens + generatedWeight*s.NewTokens }

const (
	// initialTokensPerByte holds until prompts have been counted: English text has about four bytes a token.
	initialTokensPerByte = 0.25
	// enoughAnswers is how many answers show well enough how long they are.
	enoughAnswers = 8
	// An estimate is raised before it is compared with the time left: by how far estimates were off on average, and by
	// deviations times their mean deviation from that, so that nearly all of those admitted are in time.
	deviations           = 3
	firstMargin          = 1.3 // until enough are known
	minMargin, maxMargin = 1.1, 2
)

// Estimator knows how long answers of one base model are and how fast an engine works at it. The zero value knows
// nothing yet. It isn't safe for concurrent use; its owner holds a lock.
type Estimator struct {
	speed         speed
	pace          pace
	lengths       lengths
	tokensPerByte average
	requestWork   average
	finished      int
	error         average // of estimates: the time that it took ÷ the estimate
	deviation     average // of the error from its mean
}

// Add counts work that an engine has done.
func (e *Estimator) Add(work float64) { e.speed.pending += work }

// Decoded notes the time of a generated token since the one before it in its answer.
func (e *Estimator) Decoded(gap time.Duration) { e.pace.decoded(gap) }

// Prefilled notes the time of an answer's first token since its prompt, of so many tokens, began to be computed.
func (e *Estimator) Prefilled(tokens int, took time.Duration) { e.pace.prefilled(tokens, took) }

// Sample is called regularly. saturated says whether every sequence of the base is in use; only then what came since
// the last call tells how fast the engine can be.
func (e *Estimator) Sample(now time.Time, saturated bool) {
	e.pace.sample(e.speed.sample(now, saturated))
}

// Interrupt is called when an engine is lost: the time in which it did nothing says nothing about its speed.
func (e *Estimator) Interrupt() { e.speed.interrupt() }

// ForgetSpeed is called when another engine may be faster or slower than the one that was measured.
func (e *Estimator) ForgetSpeed() { e.speed, e.pace = speed{}, pace{} }

// AnsweredInPart notes an answer that ended before it was complete: it shows something if it had become longer than
// expected. Otherwise only short answers would be known where long ones run out of time.
func (e *Estimator) AnsweredInPart(asked, generated int) {
	if asked > 0 && float64(generated) > e.NewTokens(asked) {
		e.lengths.add(asked, generated)
	}
}

// Answered notes a complete answer: the size of the prompt's texts, its tokens (0: they were counted with another
// answer's), how many tokens were asked for at most, and how many came.
func (e *Estimator) Answered(promptBytes int64, promptTokens, asked, generated int) {
	e.finished++
	e.requestWork.add(Prompt(promptTokens) + Generated(generated))
	if promptTokens > 0 && promptBytes > 0 {
		e.tokensPerByte.add(float64(promptTokens) / float64(promptBytes))
	}
	if asked > 0 {
		e.lengths.add(asked, generated)
	}
}

// PromptTokens estimates how many tokens a prompt has.
func (e *Estimator) PromptTokens(bytes int64) float64 {
	if e.tokensPerByte.n == 0 {
		return initialTokensPerByte * float64(bytes)
	}
	return e.tokensPerByte.mean * float64(bytes)
}

// NewTokens estimates how many tokens an answer will have that may have at most asked.
func (e *Estimator) NewTokens(asked int) float64 { return e.lengths.estimate(asked) }

// Speed is the work that the engine does in a second when all its sequences are in use; 0: not known yet.
func (e *Estimator) Speed() float64 { return e.speed.perSecond() }

// TimeFor is how long the engine needs for work, in a share of its speed; 0: the speed isn't known.
func (e *Estimator) TimeFor(work, share float64) time.Duration {
	perSecond := e.Speed()
	if perSecond <= 0 {
		return 0
	}
	return seconds(work / (perSecond * share))
}

// Load is what a request would have to wait for.
type Load struct {
	Sequences int     // that the base can decode at a time; 0: not loaded
	AtEngine  int     // requests of the base that an engine has
	Ahead     float64 // work of the requests that would go to the engine before it
	Share     float64 // of the engine's speed that serves what is Ahead: above 0 … 1
}

// Estimate is how long a request takes from now on.
type Estimate struct {
	Known bool          // without it the times are 0
	Start time.Duration // until it has a sequence
	Run   time.Duration // from then on

	margin float64
}

// Estimate says how long a request of that size would take. It isn't known before the speed was measured and as many
// answers as the engine has sequences have shown how long they are.
func (e *Estimator) Estimate(l Load, size Size) Estimate {
	perSecond := e.Speed()
	if perSecond <= 0 || l.Sequences <= 0 || e.finished < min(l.Sequences, enoughAnswers) {
		return Estimate{}
	}
	run := e.run(l.Sequences, size)
	if l.AtEngine < l.Sequences && l.Ahead <= 0 {
		return Estimate{Known: true, Run: seconds(run), margin: e.margin()}
	}
	// What is at the engine beyond its sequences waits there, and somebody's answer has to end before the next one
	// begins.
	before := float64(max(l.AtEngine-l.Sequences, 0)+1) * e.requestWork.mean
	start := before/perSecond + l.Ahead/(perSecond*l.Share)
	return Estimate{Known: true, Start: seconds(start), Run: seconds(run), margin: e.margin()}
}

// run is how many seconds a request takes that has one of so many sequences, all in use.
func (e *Estimator) run(sequences int, size Size) float64 {
	// Where nothing else is known each sequence gets its part of the speed.
	part := float64(sequences) / e.Speed()
	prompt, answer := size.PromptTokens*part, generatedWeight*size.NewTokens*part
	if gap, known := e.pace.gap(); known {
		answer = size.NewTokens * gap
	}
	if each, known := e.pace.promptToken(); known { // a prompt gets its part at least, whatever short ones seem to take
		prompt = min(size.PromptTokens*each, prompt)
	}
	return prompt + answer
}

// Total is the time until the answer is complete.
func (e Estimate) Total() time.Duration { return e.Start + e.Run }

// Took notes how long a request took that was admitted with that estimate. Of one that ran out of time nobody knows how
// long it would have taken, so it counts as if the estimate was as wrong as can be.
func (e *Estimator) Took(estimate, actual time.Duration, outOfTime bool) {
	if estimate <= 0 {
		return
	}
	ratio := min(float64(actual)/float64(estimate), maxMargin)
	if outOfTime {
		ratio = maxMargin
	}
	e.error.add(ratio)
	e.deviation.add(math.Abs(ratio - e.error.mean))
}

// margin is the factor by which an estimate is raised.
func (e *Estimator) margin() float64 {
	if e.error.n < enoughAnswers {
		return firstMargin
	}
	return min(max(e.error.mean+deviations*e.deviation.mean, minMargin), maxMargin)
}

// Decision says whether a request is admitted.
type Decision struct {
	Admit bool
	Wait  time.Duration // of a refused one: after so long it would have been admitted, if nobody else came
}

// Decide refuses a request that would have to wait and then not be complete in the time left. One that doesn't wait is
// always admitted: it may be shorter than expected, and holds up nobody.
func (e Estimate) Decide(left time.Duration) Decision {
	late := e.cautious() - left
	if !e.Known || e.Start == 0 || late <= 0 {
		return Decision{Admit: true}
	}
	return Decision{Wait: min(late, e.Start)}
}

// Late reports whether a request that was admitted will probably not be complete in the time left. Without the margin:
// it has waited already, and a refusal that comes late is worse than an answer that does.
func (e Estimate) Late(left time.Duration) bool { return e.Known && e.Total() > left }

// cautious is the total, raised by the margin.
func (e Estimate) cautious() time.Duration { return time.Duration(e.margin * float64(e.Total())) }

func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), math.MaxInt64/4))
}
