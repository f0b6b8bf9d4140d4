//go:build llama

package llama

/*
#include "shim.h"
#include "sampler.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// DeviceSampling says whether the device finds the candidates between which a token is drawn.
type DeviceSampling string

// Ways of DeviceSampling.
const (
	DeviceSamplingAuto DeviceSampling = "auto" // where a GPU computes the logits and is no slower
	DeviceSamplingOn   DeviceSampling = "on"
	DeviceSamplingOff  DeviceSampling = "off"
)

const (
	// candidatesOfARow come to the host, in place of its 32,000 to 256,000 logits. More than top_k by default, so that
	// penalties may take some away.
	candidatesOfARow = 128
	// To attach or detach candidates reserves the graph's memory anew, which may take as long as a step. So they come
	// back only when so many steps in a row could have used them.
	stepsBeforeAttach = 64
	// stepsAfterFailure is how many more after a device had no memory for them.
	stepsAfterFailure = 10000
	// Draws of one answer for which the candidates may be too few; after that its rows are asked for.
	shortDrawsMax = 2
	timedSteps    = 4 // at load, in each way; the first also reserves memory
)

// deviceSampling has the device find the largest logits of each row, so that rows needn't come to the host. That is for
// all sequences of a step or for none: the library skips rows only if nobody needs one, and what is attached to a
// sequence can't be changed without reserving the graph anew. What is drawn doesn't depend on it. Used only on the
// goroutine that steps.
type deviceSampling struct {
	handle   *C.tdm_candidates // nil: off
	attached bool              // to the context
	quiet    int               // steps in a row that needed no row since candidates were detached
	counts   batch.DeviceDraws // of the last step
}

// errRowsNeeded: the candidates of a step don't decide what is drawn.
var errRowsNeeded = errors.New("the candidates are too few")

// openDeviceSampling decides whether the device finds candidates, once the context has computed something.
func (b *Base) openDeviceSampling() error {
	b.sampling = hostSamples(b.whyNoDeviceSampling())
	if b.sampling.DecidedBy == "" {
		var err error
		if b.sampling, err = b.tryDeviceSampling(); err != nil {
			return err
		}
	}
	b.readContextMemory(b.context) // candidates take some
	what := "the host samples"
	if b.sampling.Place == models.SamplingDevice {
		what = "the device samples"
	}
	b.opts.Logger.Info(what, "model", b.spec.Name, "why", b.sampling.DecidedBy)
	return nil
}

func hostSamples(why string) models.Sampling {
	return models.Sampling{Place: models.SamplingHost, DecidedBy: why}
}

// whyNoDeviceSampling says what speaks against it; empty: nothing.
func (b *Base) whyNoDeviceSampling() string {
	output := int(C.tdm_output_device(b.model))
	onGPU := slices.ContainsFunc(b.backend.accelerators, func(d Device) bool { return d.number == output })
	switch {
	case b.opts.DeviceSampling == DeviceSamplingOff:
		return "BACKEND_SAMPLING=off"
	case !b.limits.Prefix: // a step couldn't be repeated
		return "the model's state can't be taken back"
	case b.vocab.size() < 2*candidatesOfARow:
		return "the vocabulary is small"
	case !onGPU && b.opts.DeviceSampling != DeviceSamplingOn:
		return "the CPU computes the logits"
	}
	return ""
}

// tryDeviceSampling attaches candidates and computes with them what the dry run has computed without. Where the host
// must sample, or had better, the context is then as before.
func (b *Base) tryDeviceSampling() (models.Sampling, error) {
	sequences := min(b.limits.Sequences, b.limits.StepTokens)
	if b.candidates.handle = C.tdm_candidates_new(C.int32_t(b.limits.Sequences), candidatesOfARow); b.candidates.handle == nil {
		return hostSamples("out of memory"), nil
	}
	b.candidates.attach(b.context)
	possible := b.candidates.attached
	var sampling models.Sampling
	err := b.decodeFirstTokens(sequences, dryRun{candidates: true})
	switch {
	case err != nil:
		sampling = hostSamples(err.Error())
	case possible && !b.candidates.attached:
		sampling = hostSamples("the device has no memory for candidates")
	case !possible || !b.candidatesComplete(b.places[0]):
		sampling = hostSamples("the device can't find the largest logits")
	case b.opts.DeviceSampling == DeviceSamplingOn:
		sampling = models.Sampling{Place: models.SamplingDevice, DecidedBy: "BACKEND_SAMPLING=on"}
	default:
		if sampling, err = b.fasterSampling(sequences); err != nil {
			return models.Sampling{}, err
		}
	}
	if sampling.Place == models.SamplingHost {
		b.candidates.detach(b.context)
		b.candidates.close()
		return sampling, b.decodeFirstTokens(sequences, dryRun{})
	}
	if !b.candidates.attached {
		b.candidates.attach(b.context)
	}
	return sampling, b.decodeFirstTokens(sequences, dryRun{candidates: true})
}

// fasterSampling times steps in both ways. How fast a device finds the largest of 100,000 numbers is anything between a
// sort for each row and a fraction of that.
func (b *Base) fasterSampling(sequences int) (models.Sampling, error) {
	device, err := b.timeSteps(sequences, true)
	if err != nil {
		return models.Sampling{}, err
	}
	host, err := b.timeSteps(sequences, false)
	if err != nil {
		return models.Sampling{}, err
	}
	sampling := hostSamples(fmt.Sprintf("steps of %d sequences took %v with candidates from the device and %v with whole rows", sequences, device, host))
	if device <= host {
		sampling.Place = models.SamplingDevice
	}
	return sampling, nil
}

// timeSteps is how long the shortest of a few steps of so many sequences took, draws included.
func (b *Base) timeSteps(sequences int, candidates bool) (time.Duration, error) {
	chain := batch.Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05}
	parts := make([]batch.Slice, sequences)
	for seq := range parts {
		sampler, err := b.NewSampler(chain, nil, nil)
		if err != nil {
			return 0, err
		}
		defer sampler.Close()
		sampler.(*Sampler).takesCandidates = candidates
		parts[seq] = batch.Slice{Seq: seq, Tokens: []batch.Token{b.gapFiller()}, Sampler: sampler}
	}
	defer C.llama_memory_clear(b.memory, false)
	shortest := time.Duration(math.MaxInt64)
	for range timedSteps {
		C.llama_memory_clear(b.memory, false)
		began := time.Now()
		if err := b.Step(parts); err != nil {
			return 0, fmt.Errorf("time steps: %w", err)
		}
		shortest = min(shortest, time.Since(began))
	}
	return shortest, nil
}

// close frees what there is. The context must be gone.
func (d *deviceSampling) close() {
	C.tdm_candidates_free(d.handle)
	*d = deviceSampling{}
}

// prepare attaches candidates to the context, or detaches them, for a step that needs rows or doesn't.
func (d *deviceSampling) prepare(context *C.struct_llama_context, slices []batch.Slice) {
	switch draws, rows := outputOf(slices); {
	case d.handle == nil:
	case rows:
		d.detach(context)
	case draws && !d.attached:
		if d.quiet++; d.quiet > stepsBeforeAttach {
			d.attach(context)
		}
	}
}

func (d *deviceSampling) attach(context *C.struct_llama_context) {
	d.attached, d.quiet = bool(C.tdm_candidates_attach(context, d.handle)), 0
}

func (d *deviceSampling) detach(context *C.struct_llama_context) {
	if d.attached {
		C.tdm_candidates_detach(context, d.handle)
	}
	d.attached, d.quiet = false, min(d.quiet, 0) // what giveUp has set stays
}

// giveUp detaches candidates for which there was no memory, for a long time.
func (d *deviceSampling) giveUp(context *C.struct_llama_context) {
	d.detach(context)
	d.quiet = -stepsAfterFailure
}

// outputOf reports whether a step draws tokens, and whether somebody in it needs whole rows of logits.
func outputOf(slices []batch.Slice) (draws, rows bool) {
	for i := range slices {
		s := &slices[i]
		if s.Err == nil {
			draws = draws || s.Sampler != nil
			rows = rows || len(s.Score.Targets) > 0 || !takesCandidates(s.Sampler)
		}
	}
	return draws, rows
}

func takesCandidates(sampler batch.Sampler) bool {
	switch s := sampler.(type) {
	case nil:
		return true
	case *Sampler:
		return s.takesCandidates
	case dryRun:
		return s.candidates
	}
	return false
}

// drawCandidates draws a token for each slice from what the device found. errRowsNeeded: nothing was drawn, and the
// step must be computed again, for rows.
func (b *Base) drawCandidates(slices []batch.Slice) error {
	drawn := 0
	for i := range slices {
		s := &slices[i]
		if s.Err != nil {
			continue
		}
		s.Scores = nil
		if s.Sampler == nil {
			continue
		}
		sampler, err := b.samplerOf(s)
		if err != nil {
			s.Err = err
			continue
		}
		var enough bool
		if s.Draw, enough = b.drawCandidate(sampler, b.places[i]+len(s.Tokens)-1, s.Index); !enough {
			sampler.noteShortDraw()
			return errRowsNeeded
		}
		drawn++
	}
	for i := range slices { // none before all are drawn, since a sampler can't go back
		if s := &slices[i]; s.Err == nil && s.Sampler != nil {
			s.Err = s.Sampler.Accept(s.Draw.Token)
		}
	}
	b.candidates.counts.Draws = drawn
	return nil
}

// drawCandidate draws from the candidates of output at of the step. False: they don't decide the draw.
func (b *Base) drawCandidate(sampler *Sampler, at, index int) (batch.Draw, bool) {
	tokens, logits := b.candidatesOf(at)
	return sampler.drawFromCandidates(tokens, logits, b.vocab.size(), index)
}

// candidatesOf returns what the device found of output at of the last decode, valid until the next one.
func (b *Base) candidatesOf(at int) ([]batch.Token, []float32) {
	var tokens *C.int32_t
	var logits *C.float
	n := int(C.tdm_candidates_get(b.context, C.int32_t(at), &tokens, &logits))
	return unsafe.Slice((*batch.Token)(tokens), n), unsafe.Slice((*float32)(logits), n)
}

// drawFromCandidates draws from the largest logits of a row what drawFrom draws from the row. False: they don't decide
// that.
func (s *Sampler) drawFromCandidates(tokens []batch.Token, logits []float32, vocabulary, index int) (batch.Draw, bool) {
	if len(tokens) == 0 {
		return batch.Draw{}, false
	}
	var out C.tdm_draw
	if !C.tdm_sampler_draw_candidates(s.handle, (*C.int32_t)(&tokens[0]), (*C.float)(&logits[0]), C.int32_t(len(tokens)), C.int32_t(vocabulary), C.uint32_t(index), &out) {
		return batch.Draw{}, false
	}
	return drawOf(&out), true
}

// mayDrawFromCandidates reports whether so many of the largest logits of a row can decide a draw.
func (s *Sampler) mayDrawFromCandidates(candidates, vocabulary int) bool {
	return s.constraint == nil && bool(C.tdm_sampler_takes_candidates(s.handle, C.int32_t(vocabulary), C.int32_t(candidates)))
}

// noteShortDraw notes that the candidates didn't decide a draw.
func (s *Sampler) noteShortDraw() {
	if s.shortDraws++; s.shortDraws >= shortDrawsMax {
		s.takesCandidates = false
	}
}

// candidatesComplete reports whether the device gives the candidates of output at of the last decode, and no whole row:
// where it can't find them, the library passes on what it has without a word.
func (b *Base) candidatesComplete(at int) bool {
	tokens, _ := b.candidatesOf(at)
	return len(tokens) == candidatesOfARow && !slices.ContainsFunc(tokens, func(t batch.Token) bool { return !b.vocab.valid(t) })
}
