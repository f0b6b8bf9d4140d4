//go:build llama

package grammar

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const memoryLimitChild = "TANDEM_TEST_MEMORY_BOUND"

// A grammar for which the library itself has no bound (ours keep clients from sending it) ends the process, not the
// host.
func TestMemoryIsLimited(t *testing.T) {
	if os.Getenv(memoryLimitChild) != "" {
		v, _ := bytesVocabulary(t)
		limitMemory(UsedBytes() + 64<<20)
		v.compile("json_schema", `{"multipleOf":982451653}`)
		t.Fatal("it compiles")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMemoryIsLimited$")
	cmd.Env = append(os.Environ(), memoryLimitChild+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "memory allocation of") {
		t.Errorf("%v: %.2000s", err, out)
	}
}

// A matcher's memory is freed with it.
func TestGrammarsGiveTheirMemoryBack(t *testing.T) {
	v, end := bytesVocabulary(t)
	s := Source{JSONSchema, `{"type":"object","properties":{"a":{"type":"string","pattern":"^(x|y){1,50}$"}}}`}
	follow(t, v, s, end) // what the library allocates once
	before := UsedBytes()
	for range 50 {
		follow(t, v, s, end)
	}
	if grown := UsedBytes() - before; grown > 64<<10 {
		t.Errorf("50 grammars leave %d bytes behind", grown)
	}
}
