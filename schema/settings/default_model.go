package settings

import "slices"

// DemoModel is the name of the built-in model.
const DemoModel = "demo"

// DefaultModel is the model of a request that names none, as both programs understand it: DEFAULT_MODEL where somebody
// set it or it is installed; otherwise the only model there is, else the demo model where it is offered. models are the
// names of all that are listed.
func DefaultModel(configured string, isSet bool, models []string) string {
	if isSet || slices.Contains(models, configured) {
		return configured
	}
	switch {
	case len(models) == 1:
		return models[0]
	case slices.Contains(models, DemoModel):
		return DemoModel
	}
	return configured
}
