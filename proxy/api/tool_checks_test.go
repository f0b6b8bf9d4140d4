package api

import (
	"strings"
	"testing"
)

// A name that the engine refuses has to be refused before, where the error names the field.
func TestToolNames(t *testing.T) {
	for name, want := range map[string]bool{
		"f": true, "get_weather": true, "a.b-c_9": true, strings.Repeat("n", MaxToolName): true,
		"": false, "a:b": false, "a b": false, "é": false, "a/b": false, "f\n": false, strings.Repeat("n", MaxToolName+1): false,
	} {
		if IsToolName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
