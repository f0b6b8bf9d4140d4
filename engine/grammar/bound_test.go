//go:build llama

package grammar

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const boundChild = "TANDEM_TEST_MEMORY_BOUND"

// TestMemoryHasABound: a grammar for which the library itself knows no bound (ours keep it from clients) ends the process, not the host.
func TestMemoryHasABound(t *testing.T) {
	if os.Getenv(boundChild) != "" {
		v, _ := bytesVocabulary(t)
		boundMemory(UsedBytes() + 64<<20)
		v.compile("json_schema", `{"multipleOf":982451653}`)
		t.Fatal("it compiles")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMemoryHasABound$")
	cmd.Env = append(os.Environ(), boundChild+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "memory allocation of") {
		t.Errorf("%v: %.2000s", err, out)
	}
}

// What a grammar took is given back with it.
func TestGrammarsGiveTheirMemoryBack(t *testing.T) {
	v, end := bytesVocabulary(t)
	s := Source{JSONSchema, `{"type":"object","properties":{"a":{"type":"string","pattern":"^(x|y){1,50}$"}}}`}
	follow(t, v, s, end) // what the library keeps for good
	before := UsedBytes()
	for range 50 {
		follow(t, v, s, end)
	}
	if grown := UsedBytes() - before; grown > 64<<10 {
		t.Errorf("50 grammars leave %d bytes behind", grown)
	}
}
