package settings

import "testing"

func TestDefaultModel(t *testing.T) {
	const documented = "microsoft/DialoGPT-medium"
	for name, tt := range map[string]struct {
		configured string
		set        bool
		models     []string
		want       string
	}{
		"installed":                       {documented, false, []string{DemoModel, documented, "mine"}, documented},
		"set and missing":                 {"acme/x", true, []string{DemoModel}, "acme/x"},
		"the demo model alone":            {documented, false, []string{DemoModel}, DemoModel},
		"one model":                       {documented, false, []string{"mine"}, "mine"},
		"one model beside the demo model": {documented, false, []string{DemoModel, "mine"}, DemoModel},
		"several and the demo model":      {documented, false, []string{DemoModel, "mine", "yours"}, DemoModel},
		"several":                         {documented, false, []string{"mine", "yours"}, documented},
		"nothing":                         {documented, false, nil, documented},
	} {
		if got := DefaultModel(tt.configured, tt.set, tt.models); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
