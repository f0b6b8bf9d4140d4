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

// lockSuffix makes the name of the lock file beside a socket. The file is never removed: otherwise two proxies could
// hold one each.
const lockSuffix = ".lock"

// probeTimeout bounds how long finding out whether somebody listens may take; on one machine that takes microseconds.
const probeTimeout = time.Second

// lockSocket keeps other proxies from the socket until the file is closed or the process ends, in whatever way. Of two
// that start together, one gets it.
func lockSocket(socket string) (*os.File, error) {
	// Opened for reading, so that another user's proxy can open it, too.
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
		return nil, socketInUseError(socket)
	}
	return nil, fmt.Errorf("lock engine socket %s: %w", socket, err)
}

// socketInUseError is the error for a socket on which another proxy listens.
func socketInUseError(socket string) error {
	return fmt.Errorf("another proxy listens on engine socket %s; stop it, or set ENGINE_SOCKET to another path", socket)
}

// Listening reports whether somebody listens on a Unix socket; an error means that this couldn't be found out.
func Listening(socket string) (bool, error) {
	conn, err := net.DialTimeout("unix", socket, probeTimeout)
	var slow net.Error
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, syscall.EAGAIN), errors.As(err, &slow) && slow.Timeout(): // too busy to accept
		return true, nil
	}
	return false, fmt.Errorf("find out whether somebody listens on %s: %w", socket, err)
}
