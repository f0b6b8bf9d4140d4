package supervise

import (
	"errors"
	"os"
	"time"
)

// Health is a state that a probe asks for.
type Health string

// States that a probe can ask for.
const (
	Live    Health = "live"    // the engine works
	Started Health = "started" // and preloading is over
)

// Check reports whether the engine that dials socket has the given health; the error says what is wrong.
func Check(socket string, ask Health, stall time.Duration) error {
	path, err := newestHeartbeat(socket)
	if err != nil {
		return err
	}
	h, age, err := ReadHeartbeat(path)
	if err != nil {
		return err
	}
	if h.Sequence == 0 {
		return errors.New("the engine has written no heartbeat yet")
	}
	d := hangDetector{stallTimeout: stall}
	d.observe(h, 0)
	if why := d.overdueReason(age); why != "" {
		markHang(path)
		return errors.New(why)
	}
	if ask == Started && !h.Started {
		return errors.New("the engine is still loading")
	}
	return nil
}

// hangSuffix is added to the heartbeat's path for the file by which a health check tells that it saw the engine hang.
const hangSuffix = ".hang"

// maxHangMarkAge is how long before the last heartbeat a mark counts: an engine whose step hangs may still write
// heartbeats, and health checks come every 20 s.
const maxHangMarkAge = 30 * time.Second

// markHang leaves the mark. Who kills the container then, as a kubelet does, doesn't tell the next supervisor why.
func markHang(heartbeatPath string) {
	_ = os.WriteFile(heartbeatPath+hangSuffix, nil, 0o600) // without it the reason is only less precise
}

// hangWasSeen reports whether the last health checks of an engine saw it hang.
func hangWasSeen(heartbeatPath string, lastHeartbeat time.Time) bool {
	mark, err := os.Stat(heartbeatPath + hangSuffix)
	return err == nil && lastHeartbeat.Sub(mark.ModTime()) < maxHangMarkAge
}
