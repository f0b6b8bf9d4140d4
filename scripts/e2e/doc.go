// Package e2e holds the tests that start both real programs and speak to them as clients, operators and Prometheus do. Without the
// build tag llama the engine is the mock one; with it, llama.cpp and the built-in demo model.
package e2e
