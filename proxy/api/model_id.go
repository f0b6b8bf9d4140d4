package api

import "strings"

// SplitModelID splits "base:version" as most dialects name a model. The error is one of the field model.
func SplitModelID(id string) (model, version string, err *Error) {
	model, version, _ = strings.Cut(id, ":")
	if len(model) > MaxNameBytes || len(version) > MaxNameBytes {
		return "", "", Invalid("model", "model must be the name of a model, or name and version with a colon between them, each of at most %d bytes", MaxNameBytes)
	}
	return model, version, nil
}
