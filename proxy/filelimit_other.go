//go:build !linux

package main

// fileLimit isn't known here.
func fileLimit() (uint64, bool) { return 0, false }
