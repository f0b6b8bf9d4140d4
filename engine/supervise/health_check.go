package supervise

import (
	"errors"
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
	d := hangDetector{stallTimeout: stall}
	d.observe(h, 0)
	if why := d.overdueReason(age); why != "" {
		return errors.New(why)
	}
	if ask == Started && !h.Started {
		return errors.New("the engine is still loading")
	}
	return nil
}
