//go:build llama

package main

import "testing"

func TestDeterministicNumericsAreOthers(t *testing.T) {
	if a, b := numericsID("cpu", true), numericsID("cpu", false); a == b {
		t.Errorf("both are %s: an answer begun by one kind of engine would count as going on alike on the other", a)
	}
}
