package api

// Model is an installed base model with its versions, as GET /models lists it and Resolve looks it up.
type Model struct {
	Name           string
	Description    string
	Domain         string   // "" for none configured
	DefaultVersion string   // "" for none configured
	Versions       []string // with BaseVersion, which every model has
	ChatTemplate   bool
	Context        int // tokens; 0 until it was loaded once
}

// BaseVersion is the model without adapter.
const BaseVersion = "base"
