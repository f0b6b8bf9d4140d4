package link

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

// checkPath checks that a socket's path isn't too long.
func checkPath(path string) error {
	if path == "" || len(path) > maxPathBytes {
		return fmt.Errorf("engine socket path %q has %d bytes, 1 to %d are possible", path, len(path), maxPathBytes)
	}
	return nil
}

// bindSocket listens under a temporary name and renames the file, so that the path always leads to a socket on which
// somebody listens. A file that is there already is replaced only if it is a socket on which nobody listens.
func bindSocket(path string) (*net.UnixListener, fs.FileInfo, error) {
	if err := checkReplaceable(path); err != nil {
		return nil, nil, err
	}
	return listenAt(path)
}

// listenAt is bindSocket without the check of the file that is there.
func listenAt(path string) (*net.UnixListener, fs.FileInfo, error) {
	temporary := path + tempSuffix
	_ = os.Remove(temporary) // left by a proxy that ended at this point; if it can't be removed, listening fails
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("listen for engines: %w", err)
	}
	ln.SetUnlinkOnClose(false) // the path may be a successor's by then
	file, err := installSocket(temporary, path)
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(temporary) // best effort: an odd name in a directory of ours
		return nil, nil, err
	}
	return ln, file, nil
}

// checkReplaceable returns an error unless the file at a path may be replaced. Who listens there may not know our lock,
// so it connects.
func checkReplaceable(path string) error {
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("engine socket path %q exists and is no socket", path)
	}
	listening, err := Listening(path)
	if err == nil && listening {
		err = socketInUseError(path)
	}
	return err
}

// installSocket sets the socket's mode and renames it to its path.
func installSocket(temporary, path string) (fs.FileInfo, error) {
	if err := os.Chmod(temporary, socketMode); err != nil {
		return nil, fmt.Errorf("set mode of engine socket: %w", err)
	}
	file, err := os.Lstat(temporary)
	if err != nil {
		return nil, fmt.Errorf("look at engine socket: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, fmt.Errorf("install engine socket: %w", err)
	}
	return file, nil
}

// watchSocket binds again when the path no longer leads to our socket: somebody removed it, or put another file there.
func (l *Listener) watchSocket() {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.closing:
			return
		case <-tick.C:
			l.restoreSocket()
		}
	}
}

// restoreSocket binds again if the path doesn't lead to our socket. It checks what is there without the mutex, since
// that may take a while.
func (l *Listener) restoreSocket() {
	if l.isSocketInPlace() {
		return
	}
	err := checkReplaceable(l.options.Socket)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.pathIsOurs() {
		return
	}
	var ln *net.UnixListener
	var file fs.FileInfo
	if err == nil {
		ln, file, err = listenAt(l.options.Socket)
	}
	if err != nil {
		l.logSocketError(err)
		return
	}
	l.lastSocketError = ""
	l.options.Log.Warn("the engine socket was gone and is made again", "socket", l.options.Socket)
	old := l.socket
	l.socket, l.socketInfo = ln, file
	_ = old.Close() // wakes Serve, which goes on with the new one
}

// isSocketInPlace reports whether the path leads to our socket, or the listener is closed, so that there is nothing to
// do.
func (l *Listener) isSocketInPlace() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.pathIsOurs()
}

// pathIsOurs reports whether the path leads to our socket. The caller holds l.mu.
func (l *Listener) pathIsOurs() bool {
	now, err := os.Lstat(l.options.Socket)
	return err == nil && os.SameFile(now, l.socketInfo)
}

// logSocketError logs once why engines can't find us. restoreSocket is tried again. The caller holds l.mu.
func (l *Listener) logSocketError(err error) {
	if text := err.Error(); text != l.lastSocketError {
		l.lastSocketError = text
		l.options.Log.Error("the engine socket is gone and can't be made again yet; no new engine finds this proxy", "socket", l.options.Socket, "error", err)
	}
}
