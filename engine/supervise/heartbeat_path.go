package supervise

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// HeartbeatFile returns the path to write to: the one that the supervisor has set, else one of this process.
func HeartbeatFile(socket string) (string, error) {
	if path := os.Getenv(heartbeatEnv); path != "" {
		return path, nil
	}
	return newHeartbeatFile(socket)
}

// stoppingSuffix is added to the heartbeat's path for the file by which a supervisor tells its engine that it ends.
const stoppingSuffix = ".stopping"

// Replaced reports, in an engine that was asked to end, whether another engine will follow: its supervisor lives and
// isn't ending itself.
func Replaced() bool {
	path := os.Getenv(heartbeatEnv)
	if path == "" {
		return false
	}
	_, err := os.Stat(path + stoppingSuffix)
	return errors.Is(err, os.ErrNotExist)
}

// newHeartbeatFile returns the path of this process in a private directory, and removes stale files there.
func newHeartbeatFile(socket string) (string, error) {
	var problems []error
	for _, dir := range heartbeatDirs(socket) {
		if err := privateDir(dir); err != nil {
			problems = append(problems, err)
			continue
		}
		removeStaleFiles(dir)
		if err := checkWritable(dir); err != nil {
			problems = append(problems, err)
			continue
		}
		return filepath.Join(dir, heartbeatPrefix(socket)+strconv.Itoa(os.Getpid())+".json"), nil
	}
	return "", fmt.Errorf("find a place for the heartbeat: %w", errors.Join(problems...))
}

// heartbeatDirs are the places where a heartbeat may be; the second is for read-only containers.
func heartbeatDirs(socket string) []string {
	name := "tandem-engine-" + strconv.Itoa(os.Geteuid())
	return []string{filepath.Join(os.TempDir(), name), filepath.Join(filepath.Dir(socket), name)}
}

// heartbeatPrefix separates the engines of different proxies on one machine.
func heartbeatPrefix(socket string) string { return "heartbeat-" + socketID(socket) + "-" }

func socketID(socket string) string {
	h := fnv.New64a()
	h.Write([]byte(filepath.Clean(socket)))
	return fmt.Sprintf("%016x", h.Sum64())
}

// removeHeartbeat removes the file of an engine that ended, and what is beside it.
func removeHeartbeat(path string) {
	_ = os.Remove(path) // there may be none
	removeMarks(path)
}

// removeMarks removes what is beside the heartbeat of an engine that ended.
func removeMarks(path string) {
	for _, suffix := range []string{stoppingSuffix, hangSuffix, newSuffix} {
		_ = os.Remove(path + suffix) // there may be none
	}
}

// privateDir creates dir, and refuses one that another user may write to.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s isn't a private directory of this user", dir)
	}
	return nil
}

// checkWritable writes a file as a test: the disk may be full, or read-only.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, "heartbeat-probe-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func removeStaleFiles(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "heartbeat-*")) // the pattern is good
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > staleAge {
			_ = os.Remove(f) // another process may have been faster
		}
	}
}

// newestHeartbeat returns the path of the heartbeat that was written last.
func newestHeartbeat(socket string) (string, error) {
	var best string
	var when time.Time
	for _, dir := range heartbeatDirs(socket) {
		files, _ := filepath.Glob(filepath.Join(dir, heartbeatPrefix(socket)+"*.json")) // the pattern is good
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.ModTime().After(when) {
				best, when = f, info.ModTime()
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("no engine has written a heartbeat for socket %s", socket)
	}
	return best, nil
}
