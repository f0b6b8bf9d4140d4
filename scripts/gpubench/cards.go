package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// nvidiaSMI asks the driver's own tool.
func nvidiaSMI(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "nvidia-smi", args...).Output()
	return strings.TrimSpace(string(out)), err
}

// checkKernels fails where the pack has kernels for none of the cards: engine after engine would end at its first step.
// Each line of cards ends with a compute capability.
func (b *bench) checkKernels(cards string) error {
	raw, err := os.ReadFile(filepath.Join(b.programs, "lib", "cuda-architectures"))
	if err != nil {
		return nil // nothing is known of the kernels, or there are none
	}
	architectures := strings.TrimSpace(string(raw))
	var others []string
	for line := range strings.Lines(cards) {
		capability := strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])
		number, err := strconv.Atoi(strings.ReplaceAll(capability, ".", ""))
		if err != nil || runsOn(architectures, number) {
			return nil
		}
		others = append(others, capability)
	}
	if others == nil {
		return nil
	}
	return fmt.Errorf("the pack has kernels for CUDA_ARCHS=%s alone, and the cards here have compute capability %s",
		architectures, strings.Join(others, ", "))
}

// runsOn reports whether kernels compiled for a list as CMake takes it run on a card, whose compute capability is given
// without the dot. Finished code runs on later cards of its generation, intermediate code on all later ones.
func runsOn(architectures string, card int) bool {
	for _, entry := range strings.FieldsFunc(architectures, func(r rune) bool { return r == ';' || r == ',' }) {
		name, kind, _ := strings.Cut(entry, "-")
		number, err := strconv.Atoi(strings.TrimRight(name, "af"))
		if err != nil {
			return true // a word, such as native
		}
		switch {
		case number == card:
			return true
		case strings.HasSuffix(name, "a"), number >= boundToItsCard:
		case number < card && (kind != "real" || number/10 == card/10):
			return true
		}
	}
	return false
}

// boundToItsCard is from where on llama.cpp compiles code that no other card runs.
const boundToItsCard = 120
