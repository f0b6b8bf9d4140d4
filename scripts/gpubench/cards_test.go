package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhichCardsRunKernels(t *testing.T) {
	for _, c := range []struct {
		architectures string
		card          int
		want          bool
	}{
		{"90-real", 90, true}, {"90-real", 89, false}, {"90-real", 100, false},
		{"80-real;90-real", 89, true}, {"80-real", 86, true}, {"86-real", 80, false},
		{"75-real;100-virtual", 120, true}, {"100-virtual", 90, false}, {"80", 90, true}, {"90", 80, false},
		{"120-real", 120, true}, {"120-real", 121, false}, {"120-virtual", 121, false},
		{"90a-real", 90, true}, {"90a", 100, false}, {"native", 75, true},
	} {
		if got := runsOn(c.architectures, c.card); got != c.want {
			t.Errorf("%s on %d: %v", c.architectures, c.card, got)
		}
	}
}

// Kernels for other cards are told before an engine is started with them.
func TestKernelsForOtherCards(t *testing.T) {
	b := &bench{options: &options{programs: t.TempDir()}}
	const cards = "NVIDIA L4, 23034 MiB, 580.95, 8.9\nNVIDIA L4, 23034 MiB, 580.95, 8.9"
	if err := b.checkKernels(cards); err != nil {
		t.Errorf("nothing is known of the kernels: %v", err)
	}
	lib := filepath.Join(b.programs, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lib, "cuda-architectures"), []byte("90-real\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for told, want := range map[string]string{
		cards: "the pack has kernels for CUDA_ARCHS=90-real alone, and the cards here have compute capability 8.9, 8.9",
		cards + "\nNVIDIA H200, 143771 MiB, 580.95, 9.0": "",
		"": "", "No devices were found": "",
	} {
		if err := b.checkKernels(told); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v", told, err)
		}
	}
}

// The figures are those of the card that computes. Under MIG some aren't there.
func TestSensors(t *testing.T) {
	page := func(utilization, watts string) string {
		return strings.Join([]string{`llm_gpu_utilization_ratio{device="CUDA0"} 0`, `llm_gpu_power_watts{device="CUDA0"} 60`,
			`llm_gpu_temperature_celsius{device="CUDA0"} 30`, utilization, watts, `llm_gpu_temperature_celsius{device="CUDA1"} 55`, ""}, "\n")
	}
	const busy, watts = `llm_gpu_utilization_ratio{device="CUDA1"} 0.9`, `llm_gpu_power_watts{device="CUDA1"} 400`
	idle := readSensors(page(`llm_gpu_utilization_ratio{device="CUDA1"} 0`, `llm_gpu_power_watts{device="CUDA1"} 80`), "CUDA1")
	for _, c := range []struct {
		page string
		part bool
		want string
	}{
		{page(busy, watts), false, ""},
		{page(`llm_gpu_utilization_ratio{device="CUDA1"} 0`, watts), false, "llm_gpu_utilization_ratio is 0 under load"},
		{page(busy, `llm_gpu_power_watts{device="CUDA1"} 80`), false, "llm_gpu_power_watts is 80 under load and 80 before"},
		{page("", watts), false, "nothing tells llm_gpu_utilization_ratio"},
		{page("", watts), true, "of a part of a card (MIG) the driver doesn't tell llm_gpu_utilization_ratio"},
	} {
		err := checkSensors(idle, readSensors(c.page, "CUDA1"), c.part)
		if _, skip := err.(skipped); err == nil && c.want != "" || err != nil && err.Error() != c.want || skip != c.part {
			t.Errorf("%s: %v, want %q", c.page, err, c.want)
		}
	}
}
