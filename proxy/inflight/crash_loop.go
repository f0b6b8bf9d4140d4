package inflight

import "time"

// crashLoop remembers when engines crashed without progress, and so detects a crash loop.
type crashLoop struct{ deaths []time.Time }

// Five deaths in a minute are a crash loop; at the same numbers the engine's supervisor gives up.
const (
	crashLoopDeaths = 5
	crashLoopWindow = time.Minute
)

// recordDeath adds a death. Only the newest ones are kept.
func (c *crashLoop) recordDeath(now time.Time) {
	c.deaths = append(c.deaths, now)
	if extra := len(c.deaths) - crashLoopDeaths; extra > 0 {
		c.deaths = append(c.deaths[:0], c.deaths[extra:]...)
	}
}

// reset forgets the deaths, because an engine made progress.
func (c *crashLoop) reset() { c.deaths = c.deaths[:0] }

// oneDeathAway reports whether one more death makes it a crash loop.
func (c *crashLoop) oneDeathAway(now time.Time) bool {
	i := len(c.deaths) - (crashLoopDeaths - 1)
	return i >= 0 && now.Sub(c.deaths[i]) < crashLoopWindow
}

// isActive reports whether there is a crash loop now.
func (c *crashLoop) isActive(now time.Time) bool {
	return len(c.deaths) == crashLoopDeaths && now.Sub(c.deaths[0]) < crashLoopWindow
}
