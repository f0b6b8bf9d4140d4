package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// HeartbeatInterval is how often an engine writes its heartbeat.
const HeartbeatInterval = time.Second

const (
	newSuffix         = ".new" // of a heartbeat that isn't complete
	maxHeartbeatBytes = 1 << 20
	staleAge          = time.Hour // files of this age are removed: their supervisors were killed
)

// Heartbeat is the state that an engine writes once a second, for its supervisor and for health checks.
type Heartbeat struct {
	Sequence   uint64     `json:"sequence"` // rises with every write; 0: no engine has written it
	PID        int        `json:"pid"`
	Started    bool       `json:"started"`         // preloading is over
	Connected  bool       `json:"connected"`       // to the proxy
	Progress   uint64     `json:"progress"`        // tokens generated since the start
	Activities []Activity `json:"beats"`           // of the step loop and of each load
	Loads      []Loading  `json:"loads,omitempty"` // in progress, oldest first
	// Memory is what the engine found on accelerators when it planned a KV cache; empty: it hasn't.
	Memory []FoundMemory `json:"memory,omitempty"`
}

// FoundMemory is how much of an accelerator's memory an engine found for itself: free, or filled by its own models.
type FoundMemory struct {
	Device     string `json:"device"`
	Bytes      int64  `json:"bytes"`
	TotalBytes int64  `json:"total_bytes"`
}

// Activity is the progress of the executor or of a load.
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

// WriteHeartbeat replaces the file in one go. Where there is no room for a second one, as on a full disk, it is
// overwritten: a reader may then read half of it once, but an engine that works isn't taken for hung.
func WriteHeartbeat(path string, h Heartbeat) error {
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	temporary := path + newSuffix
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

// blankHeartbeat takes the content of a heartbeat and keeps the file with its block: what fills a disk would take that
// before the next engine comes. Sequence is 0 then, as in no heartbeat that an engine writes.
func blankHeartbeat(path string) error {
	if err := overwrite(path, []byte("{}")); err != nil {
		_ = os.Remove(path) // or it would be taken for the next engine's
		return fmt.Errorf("keep room for the heartbeat: %w", err)
	}
	return nil
}

// overwrite writes into the file's own blocks.
func overwrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Truncate(int64(len(text))), f.Close())
}

// ReadHeartbeat returns the content and the age of the file.
func ReadHeartbeat(path string) (Heartbeat, time.Duration, error) {
	var h Heartbeat
	info, err := os.Stat(path)
	if err != nil {
		return h, 0, fmt.Errorf("read heartbeat: %w", err)
	}
	if info.Size() > maxHeartbeatBytes {
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
