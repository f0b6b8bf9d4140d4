package models

import (
	"runtime"
	"syscall"
)

const lowestPriority = 19 // nice value: a sixtieth of a processor for which a step competes

// lowerPriority makes the calling goroutine's thread give way to all others. Threads that compute a step wait for each
// other, so work beside them on one processor holds up all of them. The thread ends with the goroutine, since nobody
// without privileges may raise a priority again.
func lowerPriority() error {
	runtime.LockOSThread()
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, lowestPriority) // 0: this thread
}
