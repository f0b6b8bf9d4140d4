//go:build noui

package server

// pageContent returns nil in builds without the page.
func pageContent(string) []byte { return nil }
