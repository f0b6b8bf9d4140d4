//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"cmp"
	"errors"
	"fmt"

	"tandem/engine/models"
)

// cacheLayer is what one layer keeps of a token: numbers of a head and of all heads, of keys and of values. With latent
// attention (MLA) values are a part of the keys: valueRow is 0. heads is how many attend to them.
type cacheLayer struct{ keyHead, valueHead, keyRow, valueRow, heads int64 }

// numberFormat is how a KV cache holds numbers: in blocks of so many, of so many bytes.
type numberFormat struct {
	name    models.CacheType
	library C.enum_ggml_type
	block   int64 // numbers
	bytes   int64
}

var libraryTypes = map[models.CacheType]C.enum_ggml_type{
	models.CacheF32: C.GGML_TYPE_F32, models.CacheF16: C.GGML_TYPE_F16, models.CacheBF16: C.GGML_TYPE_BF16, "q8_0": C.GGML_TYPE_Q8_0,
	"q5_1": C.GGML_TYPE_Q5_1, "q5_0": C.GGML_TYPE_Q5_0, "q4_1": C.GGML_TYPE_Q4_1, "q4_0": C.GGML_TYPE_Q4_0, "iq4_nl": C.GGML_TYPE_IQ4_NL,
}

// formatOf returns the format of this name, of f16 for an unset one.
func formatOf(name models.CacheType) (numberFormat, error) {
	name = cmp.Or(name, models.CacheF16)
	t, ok := libraryTypes[name]
	if !ok {
		return numberFormat{}, fmt.Errorf("cache type %q is unknown", name)
	}
	return numberFormat{name: name, library: t, block: int64(C.ggml_blck_size(t)), bytes: int64(C.ggml_type_size(t))}, nil
}

func (f numberFormat) size(numbers int64) int64 { return numbers / f.block * f.bytes }

// cacheFormat is how the cache of a base is made.
type cacheFormat struct{ key, value numberFormat }

var plainCache = func() cacheFormat {
	f, err := formatOf(models.CacheF16)
	if err != nil {
		panic(err) // the table has it
	}
	return cacheFormat{f, f}
}()

// chooseCacheFormat returns the format that attention asks for, or an error when the model's layers can't have it. The
// library checks a part of this only where it uses flash attention, and reads beyond the end of rows otherwise.
func chooseCacheFormat(a models.Attention, layers []cacheLayer) (cacheFormat, error) {
	key, err := formatOf(a.KeyType)
	if err != nil {
		return cacheFormat{}, err
	}
	value, err := formatOf(a.ValueType)
	if err != nil {
		return cacheFormat{}, err
	}
	for _, l := range layers {
		switch {
		case l.keyHead%key.block != 0:
			return cacheFormat{}, fmt.Errorf("cache_type_k %s holds blocks of %d numbers, and the model's keys have heads of %d: take f16, bf16 or f32",
				key.name, key.block, l.keyHead)
		case l.valueRow > 0 && l.valueHead%value.block != 0:
			return cacheFormat{}, fmt.Errorf("cache_type_v %s holds blocks of %d numbers, and the model's values have heads of %d: take f16, bf16 or f32",
				value.name, value.block, l.valueHead)
		case l.valueRow == 0 && key.name != value.name:
			return cacheFormat{}, fmt.Errorf("cache_type_k %s and cache_type_v %s: this model keeps keys and values as one (MLA), so both must be the same", key.name, value.name)
		}
	}
	return cacheFormat{key, value}, nil
}

// cellBytes is the memory of one token in the KV cache.
func (f cacheFormat) cellBytes(layers []cacheLayer) int64 {
	var sum int64
	for _, l := range layers {
		sum += f.key.size(l.keyRow) + f.value.size(l.valueRow)
	}
	return sum
}

// cacheLayers reads the layers of a model that keep keys and values, and on which device each does; none of a recurrent
// model keeps any.
func cacheLayers(model *C.struct_llama_model) (layers []cacheLayer, devices []int, err error) {
	read := make([]C.tdm_cache_layer, C.TDM_LAYERS_MAX)
	n := int(C.tdm_cache_layers(model, &read[0], C.int32_t(len(read))))
	if n < 0 {
		return nil, nil, errors.New("read the layers of the KV cache: the library failed")
	}
	for _, l := range read[:n] {
		layers = append(layers, cacheLayer{
			keyHead: int64(l.key_head), valueHead: int64(l.value_head), keyRow: int64(l.key_row), valueRow: int64(l.value_row), heads: int64(l.heads),
		})
		devices = append(devices, int(l.device))
	}
	return layers, devices, nil
}
