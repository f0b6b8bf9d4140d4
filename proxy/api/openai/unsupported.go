package openai

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// refusal is a field that isn't supported, with the values that ask for nothing.
type refusal struct {
	param    string
	value    jsontext.Value // as the client wrote it, nil when absent
	harmless string         // compact JSON values besides null, false, {} and [], separated by spaces
	why      string
}

// refuse returns the error of the first field that asks for what isn't supported, so that a client that gets an answer
// can rely on it that nothing was left out.
func refuse(list []refusal) *api.Error {
	for i := range list {
		if f := &list[i]; f.asksForSomething() {
			return api.Invalid(f.param, "%s", f.why)
		}
	}
	return nil
}

func (f *refusal) asksForSomething() bool {
	switch f.value.Kind() {
	case jsontext.KindInvalid, 'n', 'f': // absent, null, false
		return false
	}
	if err := f.value.Compact(); err != nil {
		return true
	}
	text := string(f.value)
	return text != "{}" && text != "[]" && !slices.Contains(strings.Fields(f.harmless), text)
}
