package api

import (
	"strings"
	"testing"
)

// Control characters take six bytes each in JSON.
func TestToolsAreBoundedAsJSON(t *testing.T) {
	with := func(bytes int) []Tool { return []Tool{{Name: "f", Description: strings.Repeat("\x01", bytes)}} }
	if err := CheckToolBytes(with(MaxToolBytes / 7)); err != nil {
		t.Error(err)
	}
	if err := CheckToolBytes(with(MaxToolBytes / 6)); err == nil || err.Param != "tools" {
		t.Errorf("got %v", err)
	}
}

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
