//go:build llama

package llama

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCgroupQuota(t *testing.T) {
	root := t.TempDir()
	pod := filepath.Join(root, "pod", "container")
	if err := os.MkdirAll(pod, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		filepath.Join(root, "pod", "cpu.max"): "250000 100000\n",
		filepath.Join(pod, "cpu.max"):         "max 100000\n",
		filepath.Join(root, "self"):           "0::/pod/container\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := cgroupQuota(root, filepath.Join(root, "self")); got != 2 {
		t.Errorf("quota %d, want 2", got)
	}
	if threadCount(3, 1) != 3 || threadCount(0, 1<<20) != 1 || threadCount(0, 1<<30) < 1 {
		t.Error("threads: the setting, or 1 for a small model, or what is allowed")
	}
}
