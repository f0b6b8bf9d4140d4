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
	"math"
	"strconv"

	"tandem/engine/models"
)

// ropeOfFile is what a model's file says of its positions.
type ropeOfFile struct {
	rotary   bool
	trained  int     // tokens that it reads as it is
	original int     // tokens that it was trained for without scaling; 0: it doesn't say
	scale    float32 // what positions are multiplied by; 1: they aren't scaled
}

// ropeChoice is how positions are computed. Numbers that are 0 are as the file says.
type ropeChoice struct {
	kind                C.enum_llama_rope_scaling_type
	freqBase, freqScale float32
	original            int // tokens
	longest             int // tokens of a sequence at most
}

var errNoRotary = errors.New("rope_scaling: the model's positions aren't rotary, so they can't be scaled")

// chooseRope returns what r makes of the file's positions. A model with another kind of positions has a table of them,
// beyond which the library ends the process.
func chooseRope(r models.RopeScaling, f ropeOfFile) (ropeChoice, error) {
	c := ropeChoice{kind: C.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, longest: f.trained}
	if r == (models.RopeScaling{}) || r == (models.RopeScaling{Type: models.RopeAuto}) {
		return c, nil
	}
	if !f.rotary {
		return c, errNoRotary
	}
	c.freqBase = r.FreqBase
	original := unscaledContext(f)
	switch r.Type {
	case models.RopeNone:
		c.kind, c.longest = C.LLAMA_ROPE_SCALING_TYPE_NONE, original
	case models.RopeLinear, models.RopeYarn:
		c.kind = C.LLAMA_ROPE_SCALING_TYPE_LINEAR
		if r.Type == models.RopeYarn {
			c.kind = C.LLAMA_ROPE_SCALING_TYPE_YARN
		}
		c.original = cmp.Or(r.OriginalContext, original)
		c.freqScale = 1 / r.ScaleFactor()
		longest := math.Floor(float64(c.original)*float64(r.ScaleFactor()) + 0.001) // 1/FreqScale isn't exact
		if longest > longestRope {
			return c, fmt.Errorf("rope_scaling: %d tokens times %v are more than %d", c.original, r.ScaleFactor(), longestRope)
		}
		c.longest = int(longest)
	}
	return c, nil
}

// longestRope is the most tokens that positions may be scaled to; the product must fit the library's numbers.
const longestRope = 1 << 26

// unscaledContext is what the model reads without the scaling in its file.
func unscaledContext(f ropeOfFile) int {
	switch {
	case f.scale == 1 || f.scale <= 0:
		return f.trained
	case f.original > 0:
		return f.original
	}
	return max(int(float32(f.trained)*f.scale), 1)
}

func readRope(model *C.struct_llama_model) ropeOfFile {
	original, err := strconv.ParseInt(meta(model, meta(model, "general.architecture")+".rope.scaling.original_context_length"), 10, 32)
	if err != nil {
		original = 0
	}
	return ropeOfFile{
		rotary:  C.llama_model_rope_type(model) != C.LLAMA_ROPE_TYPE_NONE,
		trained: int(C.llama_model_n_ctx_train(model)), original: int(original), scale: float32(C.llama_model_rope_freq_scale_train(model)),
	}
}
