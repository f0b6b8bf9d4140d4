package main

import "syscall"

// openFileLimit is how many files this process may have open. Go has raised the soft limit to the hard one at its
// start.
func openFileLimit() (uint64, bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return limit.Cur, true
}
