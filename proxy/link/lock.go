package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// lockSuffix makes the name of the lock file beside a socket. The file stays, since removing it would let two proxies hold one each.
const lockSuffix = ".lock"

// probeTimeout bounds how long it may take to find out whether somebody listens; on one machine that is a matter of microseconds.
const probeTimeout = time.Second

// lock keeps other proxies from the socket until the file is closed, or the process ends however it may. Of two that start together
// one gets it.
func lock(socket string) (*os.File, error) {
	// For reading, so that it can be opened by another user's proxy, too.
	file, err := os.OpenFile(socket+lockSuffix, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of engine socket %s: %w", socket, err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, inUse(socket)
	}
	return nil, fmt.Errorf("lock engine socket %s: %w", socket, err)
}

func inUse(socket string) error {
	return fmt.Errorf("another proxy listens on engine socket %s; stop it, or set ENGINE_SOCKET to another path", socket)
}

// Listening tells whether somebody listens on a Unix socket; an error means that nobody can tell.
func Listening(socket string) (bool, error) {
	conn, err := net.DialTimeout("unix", socket, probeTimeout)
	var slow net.Error
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, syscall.EAGAIN), errors.As(err, &slow) && slow.Timeout(): // too busy to say so
		return true, nil
	}
	return false, fmt.Errorf("find out whether somebody listens on %s: %w", socket, err)
}
