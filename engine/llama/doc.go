// Package llama is the only one that calls llama.cpp: it loads models and LoRA adapters, renders and tokenises prompts,
// runs decode steps and draws tokens. It doesn't decide which sequence runs when (package batch) or which file is
// loaded (package models). No C type leaves it. Everything but this comment needs the build tag llama, a C++ compiler
// and the library that scripts/build-llama.sh makes.
//
// Inputs that would end or stall the process inside the library are refused here before the call.
package llama
