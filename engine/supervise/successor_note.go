package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// maxNoteAge is how old a note may be that still says something about the engine before.
const maxNoteAge = time.Hour

// successorNote is what a supervisor writes down for the next one on the same socket. It is for a supervisor that dies
// with its engine, as when a container is killed: the next one, which is another process in another control group,
// would know nothing.
type successorNote struct {
	StartedAt  time.Time `json:"started_at"`            // of the engine
	Heartbeat  string    `json:"heartbeat"`             // the engine's file
	Crashes    int       `json:"crashes,omitempty"`     // of the engines before it, as in LastExit
	StopAsked  bool      `json:"stop_asked,omitempty"`  // a signal asked the supervisor to end
	MemoryFull bool      `json:"memory_full,omitempty"` // the control group had no memory left, when last looked at
	Ended      *LastExit `json:"ended,omitempty"`       // how the engine ended; nil: it ran

	Memory []FoundMemory `json:"memory,omitempty"` // as in LastExit
}

// evidence is what the engine of a note left.
type evidence struct {
	heartbeat Heartbeat     // zero: none
	writtenAt time.Time     // when it was written; zero: never
	hangSeen  bool          // a health check saw the engine hang shortly before
	age       time.Duration // since the note or the heartbeat was written
}

// exit says how the engine of a note ended. One that ran when the note was last written was killed with its supervisor:
// nobody saw why, so what they left decides.
func (n *successorNote) exit(e evidence) LastExit {
	if e.age > maxNoteAge {
		return LastExit{}
	}
	if n.Ended != nil {
		return *n.Ended
	}
	exit := LastExit{Kind: Signal, Signal: int(syscall.SIGKILL), Loads: e.heartbeat.Loads, Crashes: n.Crashes + 1, Memory: n.Memory}
	if !e.writtenAt.IsZero() {
		exit.Uptime = max(0, e.writtenAt.Sub(n.StartedAt))
	}
	if e.heartbeat.Progress > 0 {
		exit.Crashes = 1
	}
	switch {
	case e.hangSeen:
		exit.Kind = Stall
	case n.StopAsked:
		return LastExit{Kind: Upgrade, Uptime: exit.Uptime, Memory: n.Memory}
	case n.MemoryFull:
		exit.Kind = OOM
	}
	return exit
}

// noteFile is the note of this supervisor, and before that the one of the supervisor before. While it is open it is
// locked, so that a second supervisor of the same socket, which is possible during an upgrade, leaves it alone.
type noteFile struct {
	f           *os.File // nil: there is no place for it, or it is another supervisor's
	anothers    string   // path of the file while it is another supervisor's; empty: it isn't
	note        successorNote
	refreshedAt time.Time
}

// openNote opens the note for a socket and returns how the engine of the supervisor before ended: zero where nobody
// left one.
func openNote(socket string) (*noteFile, LastExit, error) {
	var problems []error
	dirs := heartbeatDirs(socket)
	slices.Reverse(dirs) // the socket's directory outlives the container, a temporary directory may not
	for _, dir := range dirs {
		path := filepath.Join(dir, "supervisor-"+socketID(socket)+".note")
		f, err := openLocked(path)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return &noteFile{anothers: path}, LastExit{}, nil
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		n := &noteFile{f: f}
		last, err := n.takeOver()
		return n, last, err
	}
	return &noteFile{}, LastExit{}, fmt.Errorf("find a place for the note to the next supervisor: %w", errors.Join(problems...))
}

func openLocked(path string) (*os.File, error) {
	if err := privateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// takeOver reads the note that is there.
func (n *noteFile) takeOver() (LastExit, error) {
	text, err := io.ReadAll(io.LimitReader(n.f, maxHeartbeatBytes))
	if err != nil {
		return LastExit{}, fmt.Errorf("read %s: %w", n.f.Name(), err)
	}
	if len(text) == 0 {
		return LastExit{}, nil
	}
	if err := json.Unmarshal(text, &n.note); err != nil {
		return LastExit{}, fmt.Errorf("read %s: %w", n.f.Name(), err)
	}
	info, err := n.f.Stat()
	if err != nil {
		return LastExit{}, fmt.Errorf("read %s: %w", n.f.Name(), err)
	}
	last := n.note.exit(findEvidence(n.note.Heartbeat, info.ModTime()))
	removeHeartbeat(n.note.Heartbeat) // or a health check would take it for that of the next engine
	return last, nil
}

// findEvidence reads what an engine left beside its heartbeat.
func findEvidence(heartbeatPath string, noteWritten time.Time) evidence {
	var e evidence
	last := noteWritten
	if h, age, err := ReadHeartbeat(heartbeatPath); err == nil && h.Sequence > 0 {
		e.heartbeat, e.writtenAt = h, time.Now().Add(-age)
		e.hangSeen = hangWasSeen(heartbeatPath, e.writtenAt)
		if e.writtenAt.After(last) {
			last = e.writtenAt
		}
	}
	e.age = time.Since(last)
	return e
}

// write replaces the note's content in its own blocks, which works also when there is no memory for new ones.
func (n *noteFile) write(change func(*successorNote)) error {
	change(&n.note)
	if n.f == nil && !n.takeFromAnother() {
		return nil
	}
	n.refreshedAt = time.Now()
	text, err := json.Marshal(n.note)
	if err == nil {
		_, err = n.f.WriteAt(text, 0)
	}
	if err == nil {
		err = n.f.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("write the note to the next supervisor: %w", err)
	}
	return nil
}

// takeFromAnother makes the file this supervisor's if the other one has ended, as it does in an upgrade. What the other
// left is about an engine of before.
func (n *noteFile) takeFromAnother() bool {
	if n.anothers == "" {
		return false
	}
	f, err := openLocked(n.anothers)
	if err != nil {
		return false
	}
	n.f, n.anothers = f, ""
	return true
}

// refresh writes the note again before it is too old to say something, and as soon as it is this supervisor's.
func (n *noteFile) refresh() error {
	if n.anothers == "" && time.Since(n.refreshedAt) < maxNoteAge/6 {
		return nil
	}
	return n.write(func(*successorNote) {})
}

// close unlocks the note; the file stays.
func (n *noteFile) close() {
	if n.f != nil {
		_ = n.f.Close() // what was written is in the file
	}
}
