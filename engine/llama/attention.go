//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"

	"tandem/engine/models"
)

// attention is how all contexts of a base compute: what its spec asks for, as it fits the model.
type attention struct {
	cache     cacheFormat
	cellBytes int64
	rope      ropeChoice
	flash     C.enum_llama_flash_attn_type
	mustFlash bool // it was asked for, or values need it
}

var flashTypes = map[models.FlashAttention]C.enum_llama_flash_attn_type{
	"": C.LLAMA_FLASH_ATTN_TYPE_AUTO, models.FlashAuto: C.LLAMA_FLASH_ATTN_TYPE_AUTO,
	models.FlashOn: C.LLAMA_FLASH_ATTN_TYPE_ENABLED, models.FlashOff: C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}

// chooseAttention refuses what the model can't do, before the library is asked.
func chooseAttention(wanted models.Attention, layers []cacheLayer, file ropeOfFile, deterministic bool) (attention, error) {
	if err := wanted.Check(); err != nil {
		return attention{}, err
	}
	if deterministic && wanted.Flash == models.FlashOff {
		return attention{}, fmt.Errorf("flash_attention off: %w, since only flash attention adds up in the order of positions", ErrNotDeterministic)
	}
	cache, err := chooseCacheFormat(wanted, layers)
	if err != nil {
		return attention{}, err
	}
	rope, err := chooseRope(wanted.Rope, file)
	if err != nil {
		return attention{}, err
	}
	return attention{
		cache: cache, cellBytes: cache.cellBytes(layers), rope: rope, flash: flashTypes[wanted.Flash],
		mustFlash: wanted.Flash == models.FlashOn || deterministic || wanted.ValueType.Quantized(),
	}, nil
}

// seenBytes is what computing takes of a cell for each token of a pass: that the token sees it or not, and, without
// flash attention, the scores of all heads of a layer. Where auto ends without isn't known before there is a context.
func (a *attention) seenBytes(layers []cacheLayer) int64 {
	if a.flash != C.LLAMA_FLASH_ATTN_TYPE_DISABLED {
		return maskBytes
	}
	heads := int64(1)
	for _, l := range layers {
		heads = max(heads, l.heads)
	}
	return scoreBytes * (1 + heads)
}

const (
	maskBytes  = 2 // f16
	scoreBytes = 4 // f32, as the mask is then
)

// apply sets the fields of a context that is to be made. One without a KV cache has no format of it.
func (a *attention) apply(params *C.tdm_context, hasCache bool) {
	cache := a.cache
	if !hasCache {
		cache = plainCache
	}
	params.key_type, params.value_type, params.flash = C.int32_t(cache.key.library), C.int32_t(cache.value.library), C.int32_t(a.flash)
	params.rope_type, params.rope_base, params.rope_scale = C.int32_t(a.rope.kind), C.float(a.rope.freqBase), C.float(a.rope.freqScale)
	params.original_context = C.uint32_t(a.rope.original)
}

// checkFlash returns an error when a context came out without the flash attention that it must have: the library only
// warns of some architectures.
func (b *Base) checkFlash() error {
	if b.attention.mustFlash && !bool(C.tdm_context_flash(b.context)) {
		return fmt.Errorf("flash attention is needed for what was asked, and the architecture %s has none", meta(b.model, "general.architecture"))
	}
	return nil
}

// kvCache is what the context of a base keeps, as it was made.
func (b *Base) kvCache(bytes int64) models.KVCache {
	if !b.generates {
		return models.KVCache{}
	}
	return models.KVCache{Bytes: bytes, KeyType: b.attention.cache.key.name, ValueType: b.attention.cache.value.name, Flash: bool(C.tdm_context_flash(b.context)),
		Layout: b.size.layout}
}
