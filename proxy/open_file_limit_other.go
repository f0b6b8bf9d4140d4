//go:build !linux

package main

// openFileLimit isn't known here.
func openFileLimit() (uint64, bool) { return 0, false }
