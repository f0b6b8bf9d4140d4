// Package demo embeds the small demo model in the program, so that a fresh installation answers without a download. It
// only provides the packed files and their description; package models unpacks and loads them.
package demo

import (
	_ "embed" // the model files
	"slices"
)

// What the registry lists for the demo model.
const (
	Name        = "demo"
	Description = "Tiny built-in model (1.5 million parameters) that knows the capitals of the world, chemical elements and a little small talk; for trying things out, not for real use"
)

// What its header says.
const (
	Context      = 512 // tokens
	Architecture = "llama"
	Quantization = "Q8_0"
)

// File is one embedded GGUF file, packed with xz.
type File struct {
	Version string // empty for the weights; otherwise the LoRA version
	Packed  []byte // the .xz bytes; must not be changed
	SHA256  string // of the unpacked file, hexadecimal
	Bytes   int64  // size of the unpacked file
}

//go:embed demo-q8_0.gguf.xz
var weights []byte

//go:embed demo-lora-v1.0.gguf.xz
var fullSentences []byte

//go:embed demo-lora-v1.1.gguf.xz
var terse []byte

//go:embed demo-lora-v2.0.gguf.xz
var french []byte

var files = []File{
	{Packed: weights, Bytes: 1603680, SHA256: "c06d2dd2797610efbf2907b83ebdb19d2012a6d0e758f19f3d322179b7f28983"},
	{Version: "v1.0", Packed: fullSentences, Bytes: 196576, SHA256: "3bbffc934ce9ac01b5ee64cab5e1cdd4bccd2792f6467fa8934a9d854897e302"},
	{Version: "v1.1", Packed: terse, Bytes: 196576, SHA256: "4d445492dafbc0a90142ca6c4f54bd77f2c8ec0fcf9eb67165b2e4da65c69f3c"},
	{Version: "v2.0", Packed: french, Bytes: 196576, SHA256: "0dd58ac05e4cc9c79a6ebfda33cb387f9afd4078b001049e18b8893e7a2ae66c"},
}

// Files returns the weights first, then the LoRA versions in ascending order.
func Files() []File { return slices.Clone(files) }
