//go:build llama

package grammar

import (
	"errors"
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
		memoryLimitBytes = 4 * (UsedBytes() + 16<<20)
		m, err := v.NewMatcher(Source{JSONSchema, `{"type":"boolean"}`}) // the first one sets the limit
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
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

// Where the grammars of others hold most of the memory, one more is refused, and only that request fails.
func TestGrammarsThatHoldTheMemoryRefuseOthers(t *testing.T) {
	v, _ := bytesVocabulary(t)
	defer func(before int64) { memoryLimitBytes = before }(memoryLimitBytes)
	setMemoryLimit() // the real one: nothing is to end here
	boolean := Source{JSONSchema, `{"type":"boolean"}`}
	memoryLimitBytes = UsedBytes()
	if m, err := v.NewMatcher(boolean); !errors.Is(err, ErrTooComplex) {
		t.Errorf("with all of the memory taken: %v, %v", m, err)
	}
	memoryLimitBytes = 2 * UsedBytes()
	m, err := v.NewMatcher(boolean)
	if err != nil {
		t.Fatalf("with half of it taken: %v", err)
	}
	m.Close()
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
