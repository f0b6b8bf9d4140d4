// Package vocabulary reads and writes the bodies of the endpoints that show what a model makes of a text without
// computing anything: /tokenize, /detokenize and /apply-template, in llama-server's form. What carries the calls is not
// known here.
package vocabulary
