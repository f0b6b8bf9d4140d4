package link

import (
	"fmt"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
)

// fieldReader reads fields and keeps the first error of several getters.
type fieldReader struct {
	err      error
	versions int // of all models so far
}

func (r *fieldReader) keepErr(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *fieldReader) text(v string, err error) string {
	r.keepErr(err)
	return v // the accessor copies
}

// data returns bytes that point into the frame.
func (r *fieldReader) data(v []byte, err error) []byte {
	r.keepErr(err)
	return v
}

func (r *fieldReader) failure(from schema.Failure) inflight.Failure {
	return inflight.Failure{Code: r.text(from.Code()), Text: r.text(from.Text()), Param: r.text(from.Param()), Retryable: from.Retryable(), PromptTokens: int(from.PromptTokens())}
}

func (r *fieldReader) facts(from schema.Facts, err error) inflight.Facts {
	r.keepErr(err)
	return inflight.Facts{
		Memory: r.memory(from.Memory()), CellsLimit: r.text(from.CellsLimit()),
		CacheTypeK: r.text(from.CacheTypeK()), CacheTypeV: r.text(from.CacheTypeV()), FlashAttention: from.FlashAttention(), KVLayout: r.text(from.KvLayout()),
		Sampling: r.text(from.Sampling()), SamplingDecidedBy: r.text(from.SamplingDecidedBy()),
		Architecture: r.text(from.Architecture()), Quantization: r.text(from.Quantization()), Backend: r.text(from.Backend()),
		ContextTokens: int(from.ContextTokens()), Cells: int(from.Cells()), Sequences: int(from.Sequences()),
		WeightBytes: from.WeightBytes(), CacheBytes: from.CacheBytes(),
		Abilities: abilities(from), EmbeddingSize: int(from.EmbeddingSize()),
	}
}

func abilities(from schema.Facts) inflight.Abilities {
	return inflight.Abilities{
		ChatTemplate: from.ChatTemplate(), Tools: from.Tools(), Reasoning: from.Reasoning(),
		Generates: from.Generates(), Embeddings: from.Embeddings(), Scores: from.Scores(),
	}
}

func (r *fieldReader) memory(list schema.DeviceMemory_List, err error) []inflight.DeviceMemory {
	if err != nil || list.Len() > maxDevices {
		r.keepErr(listError("devices of a model", list.Len(), err))
		return nil
	}
	var memory []inflight.DeviceMemory
	for i := range list.Len() {
		m := list.At(i)
		memory = append(memory, inflight.DeviceMemory{Device: r.text(m.Device()), WeightBytes: m.WeightBytes(), CacheBytes: m.CacheBytes(), ComputeBytes: m.ComputeBytes(), AdapterBytes: m.AdapterBytes()})
	}
	return memory
}

func (r *fieldReader) model(from schema.Model) inflight.Model {
	m := inflight.Model{
		Name: r.text(from.Name()), Description: r.text(from.Description()), Domain: r.text(from.Domain()),
		DefaultVersion: r.text(from.DefaultVersion()), ContextTokens: int(from.ContextTokens()),
		Bytes: from.Bytes(), Quantization: r.text(from.Quantization()), Architecture: r.text(from.Architecture()),
	}
	if from.HasAbilities() {
		facts, err := from.Abilities()
		r.keepErr(err)
		known := abilities(facts)
		m.Abilities = &known
	}
	versions, err := from.Versions()
	r.versions += versions.Len()
	if err != nil || r.versions > maxVersions {
		r.keepErr(listError("versions", r.versions, err))
		return m
	}
	for i := range versions.Len() {
		v := versions.At(i)
		m.Versions = append(m.Versions, inflight.Version{Name: r.text(v.Name()), Problem: r.text(v.Problem())})
	}
	return m
}

func (r *fieldReader) ids(dst []int32, get func() (capnp.Int32List, error)) []int32 {
	list, err := get()
	if err != nil || list.Len() > maxPromptIDs {
		r.keepErr(listError("token ids", list.Len(), err))
		return dst
	}
	for i := range list.Len() {
		dst = append(dst, list.At(i))
	}
	return dst
}

// topLogprobs reads the most likely tokens at a place; their bytes point into the frame.
func (r *fieldReader) topLogprobs(get func() (schema.TopLogprob_List, error)) []api.TopLogprob {
	list, err := get()
	if err != nil || list.Len() > api.MaxTopLogprobs {
		r.keepErr(listError("most likely tokens", list.Len(), err))
		return nil
	}
	if list.Len() == 0 {
		return nil
	}
	top := make([]api.TopLogprob, list.Len())
	for i := range top {
		t := list.At(i)
		top[i] = api.TopLogprob{Token: t.Token(), Bytes: r.data(t.Text()), Logprob: t.Logprob()}
	}
	return top
}

func (r *fieldReader) texts(get func() (capnp.TextList, error)) []string {
	list, err := get()
	if err != nil || list.Len() > maxListEntries {
		r.keepErr(listError("texts", list.Len(), err))
		return nil
	}
	texts := make([]string, list.Len())
	for i := range texts {
		texts[i] = r.text(list.At(i))
	}
	return texts
}

func (r *fieldReader) triggers(get func() (schema.Trigger_List, error)) []inflight.Trigger {
	list, err := get()
	if err != nil || list.Len() > maxListEntries {
		r.keepErr(listError("triggers", list.Len(), err))
		return nil
	}
	triggers := make([]inflight.Trigger, list.Len())
	for i := range triggers {
		t := list.At(i)
		triggers[i] = inflight.Trigger{Kind: t.Kind(), Value: r.text(t.Value()), Token: t.Token()}
	}
	return triggers
}

func (r *fieldReader) heartbeats(dst []inflight.Heartbeat, get func() (schema.Beat_List, error)) []inflight.Heartbeat {
	list, err := get()
	if err != nil || list.Len() > maxListEntries {
		r.keepErr(listError("heartbeats", list.Len(), err))
		return dst
	}
	for i := range list.Len() {
		b := list.At(i)
		dst = append(dst, inflight.Heartbeat{
			Executor: r.text(b.Executor()), Phase: r.text(b.Phase()), Counter: b.Counter(), Age: duration(b.AgeNs()), Budget: duration(b.BudgetNs()),
		})
	}
	return dst
}

// listError is the error of a list that couldn't be read or has too many elements.
func listError(what string, n int, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%d %s in one frame", n, what)
}

// duration converts a field in nanoseconds. Longer times than any clock can measure are cut.
func duration(ns uint64) time.Duration { return time.Duration(min(ns, 1<<62)) }

// optional returns a pointer to v, or nil when it wasn't given.
func optional[T any](given bool, v T) *T {
	if !given {
		return nil
	}
	return &v
}
