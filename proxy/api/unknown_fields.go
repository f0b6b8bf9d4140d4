package api

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxUnknownFields    = 16 // of a body, by name
	maxUnknownNameBytes = 64
)

// UnknownFields are the names of members that no field of a dialect took, without those in ignored, which are known
// and have no effect on purpose. Long names are cut, and further ones left out.
func UnknownFields(members jsontext.Value, ignored map[string]bool) []string {
	if len(members) == 0 {
		return nil
	}
	var m map[string]jsontext.Value
	if err := json.Unmarshal(members, &m); err != nil {
		return nil
	}
	var names []string
	for name := range m {
		if !ignored[name] && len(names) < maxUnknownFields {
			names = append(names, name[:min(len(name), maxUnknownNameBytes)])
		}
	}
	slices.Sort(names)
	return names
}
