// Package e2e tests the two built programs together, as clients, operators and Prometheus see them, and the scripts
// that users run. Without the build tag llama the engine is the mock; with it, llama.cpp and the built-in demo model.
// Nothing in here reaches into a package of the programs.
package e2e
