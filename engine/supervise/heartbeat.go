package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// HeartbeatInterval is how often an engine writes its heartbeat.
const HeartbeatInterval = time.Second

const (
	maxHeartbeat = 1 << 20
	staleFile    = time.Hour // files of supervisors that were killed are removed after this
)

// Heartbeat is what an engine says of itself once a second, for its supervisor and for health checks.
type Heartbeat struct {
	Sequence   uint64     `json:"sequence"` // moves with every writing
	PID        int        `json:"pid"`
	Started    bool       `json:"started"`         // preloading is over
	Connected  bool       `json:"connected"`       // to the proxy
	Progress   uint64     `json:"progress"`        // tokens given since the start
	Activities []Activity `json:"beats"`           // of the step loop and of each load
	Loads      []Loading  `json:"loads,omitempty"` // in hand, oldest first
}

// Activity is how far one executor or load is.
type Activity struct {
	Name    string        `json:"name"`
	Phase   string        `json:"phase"`
	Counter uint64        `json:"counter"`
	Age     time.Duration `json:"age_ns"`    // since Counter moved
	Budget  time.Duration `json:"budget_ns"` // an older age means hung; 0: none
}

// Loading names a load.
type Loading struct {
	Model    string `json:"model"`
	Version  string `json:"version"`
	Revision []byte `json:"revision,omitempty"`
}

// HeartbeatFile gives the path to write to: the supervisor's wish, or one of our own.
func HeartbeatFile(socket string) (string, error) {
	if path := os.Getenv(heartbeatVariable); path != "" {
		return path, nil
	}
	return newHeartbeatFile(socket)
}

// stoppingSuffix is added to the heartbeat's path for the mark of a supervisor that ends.
const stoppingSuffix = ".stopping"

// Replaced tells an engine that was asked to go whether another one will follow it: its supervisor lives and isn't ending itself.
func Replaced() bool {
	path := os.Getenv(heartbeatVariable)
	if path == "" {
		return false
	}
	_, err := os.Stat(path + stoppingSuffix)
	return errors.Is(err, os.ErrNotExist)
}

// newHeartbeatFile gives the path of this process in a private directory, and removes what others left long ago.
func newHeartbeatFile(socket string) (string, error) {
	var problems []error
	for _, dir := range heartbeatDirs(socket) {
		if err := privateDir(dir); err != nil {
			problems = append(problems, err)
			continue
		}
		prune(dir)
		if err := writable(dir); err != nil {
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

// heartbeatPrefix keeps engines of different proxies on one machine apart.
func heartbeatPrefix(socket string) string {
	h := fnv.New64a()
	h.Write([]byte(filepath.Clean(socket)))
	return fmt.Sprintf("heartbeat-%016x-", h.Sum64())
}

// privateDir makes dir, and refuses one that somebody else may write to.
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

// writable tells whether a file with content finds place: the disk may be full, or read-only.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "heartbeat-probe-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func prune(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "heartbeat-*")) // the pattern is good
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > staleFile {
			_ = os.Remove(f) // another process may have been faster
		}
	}
}

// WriteHeartbeat replaces the file in one go. Where there is no room for a second one, as on a full disk, it is overwritten: a reader
// may then meet half of it once, but an engine that works isn't taken for hung.
func WriteHeartbeat(path string, h Heartbeat) error {
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	temporary := path + ".new"
	err = os.WriteFile(temporary, text, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err == nil {
		return nil
	}
	if again := overwrite(path, text); again != nil {
		return fmt.Errorf("write heartbeat: %w", errors.Join(err, again))
	}
	return nil
}

// overwrite keeps the blocks that the file has.
func overwrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Truncate(int64(len(text))), f.Close())
}

// ReadHeartbeat gives the content and the age of the file.
func ReadHeartbeat(path string) (Heartbeat, time.Duration, error) {
	var h Heartbeat
	info, err := os.Stat(path)
	if err != nil {
		return h, 0, fmt.Errorf("read heartbeat: %w", err)
	}
	if info.Size() > maxHeartbeat {
		return h, 0, fmt.Errorf("read heartbeat: %s has %d bytes", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return h, 0, fmt.Errorf("read heartbeat: %w", err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, 0, fmt.Errorf("read heartbeat %s: %w", path, err)
	}
	return h, time.Since(info.ModTime()), nil
}

// Health is asked for by probes.
type Health string

// What a probe can ask.
const (
	Live    Health = "live"    // the engine works
	Started Health = "started" // and has loaded what it should at its start
)

// Check tells whether the engine that dials socket is in the asked state; the error says what is wrong.
func Check(socket string, ask Health, stall time.Duration) error {
	path, err := newest(socket)
	if err != nil {
		return err
	}
	h, age, err := ReadHeartbeat(path)
	if err != nil {
		return err
	}
	w := watch{stall: stall}
	w.observe(h, 0)
	if why := w.overdue(age); why != "" {
		return errors.New(why)
	}
	if ask == Started && !h.Started {
		return errors.New("the engine is still loading")
	}
	return nil
}

// newest gives the heartbeat that was written last.
func newest(socket string) (string, error) {
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
