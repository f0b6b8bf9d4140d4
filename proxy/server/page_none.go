//go:build noui

package server

// pageContent has nothing in builds that leave the page out.
func pageContent(string) []byte { return nil }
