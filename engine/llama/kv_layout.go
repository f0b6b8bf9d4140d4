//go:build llama

package llama

import "tandem/engine/models"

// layoutChoice is how the KV cache of a base is to be laid out, and what decided it, for people.
type layoutChoice struct {
	layout models.KVLayout // unified or streams
	limit  string
	auto   bool // nobody asked for it
}

// chooseLayout decides how sequences share the KV cache. CUDA's attention computes every cell of a unified cache for
// every token of a decode step: it skips those that a token can't see only when there are several streams, or from
// 1,024 tokens on. On a CPU a unified cache costs nothing, since there 0001-attention-of-a-shared-cache.patch passes
// over the cells of others. Sequences whose state isn't a row of cells can't be copied from, and are left as they are.
func chooseLayout(asked models.KVLayout, sequences int, keepsState bool, devices []deviceShare) layoutChoice {
	switch {
	case asked != "" && asked != models.LayoutAuto:
		return layoutChoice{layout: asked, limit: "kv_layout"}
	case sequences <= 1:
		return layoutChoice{models.LayoutUnified, "one request has all cells", true}
	case keepsState:
		return layoutChoice{models.LayoutUnified, "the model keeps a state, too", true}
	case !keptOnGPUs(devices):
		return layoutChoice{models.LayoutUnified, "the CPU computes attention", true}
	}
	return layoutChoice{models.LayoutStreams, "GPUs compute attention", true}
}

// keptOnGPUs reports whether all cells lie on GPUs.
func keptOnGPUs(devices []deviceShare) bool {
	on := false
	for _, d := range devices {
		if d.cellBytes == 0 {
			continue
		}
		if d.host {
			return false
		}
		on = true
	}
	return on
}
