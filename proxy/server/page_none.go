//go:build !ui

package server

// pageContent has nothing in builds without the page.
func pageContent(string) []byte { return nil }
