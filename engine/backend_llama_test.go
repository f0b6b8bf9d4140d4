//go:build llama

package main

import (
	"testing"

	"tandem/engine/models"
)

func TestDeterministicNumericsAreOthers(t *testing.T) {
	plain := numericsID("cpu", false, models.Attention{})
	for name, other := range map[string]string{
		"deterministic":   numericsID("cpu", true, models.Attention{}),
		"quantized cache": numericsID("cpu", false, models.Attention{KeyType: "q8_0"}),
	} {
		if other == plain {
			t.Errorf("%s: both are %s: an answer begun by one kind of engine would count as going on alike on the other", name, plain)
		}
	}
}
