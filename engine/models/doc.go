// Package models knows which models and versions there are and keeps the ones in use loaded.
//
// The Registry reads MODELS_DIR: a directory name/ or org/name/ is a model, with model.gguf (or model.gguf.xz, or the
// parts of a split GGUF, or one file of any name), LoRA adapters in versions/, and an optional model.yaml; so is a file
// name.gguf. The Cache holds up to CACHE_SIZE loaded (model, version) entries and loads and evicts them through a
// Backend. Which entry is evicted is decided in eviction.go, without clocks or locks.
//
// The package doesn't decode, doesn't know the native library and doesn't talk to the proxy. Names out of a request are
// only looked up in the registry; they never become a path.
package models
