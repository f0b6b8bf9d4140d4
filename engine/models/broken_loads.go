package models

import (
	"errors"
	"time"
)

// brokenLoad remembers a failure that is the files' fault, or that is certain to happen again, so that requests for
// them don't evict good models again and again.
type brokenLoad struct {
	err        *LoadError
	until      time.Time
	retryPause time.Duration // of mayRetryForMemory
	retryAt    time.Time
}

// rememberBroken keeps the error for brokenFor, if trying again won't help. Called with mu held.
func (c *Cache) rememberBroken(src *source, err *LoadError) {
	if !err.filesAreBroken() && !err.refusedForMemory() {
		return
	}
	key, now := src.brokenKey(), time.Now()
	b := brokenLoad{err: err, until: now.Add(brokenFor), retryPause: firstMemoryRetryPause}
	if old, ok := c.brokenLoads[key]; ok && now.Before(old.until) {
		b.retryPause = min(2*old.retryPause, maxMemoryRetryPause)
	}
	b.retryAt = now.Add(b.retryPause)
	if len(c.brokenLoads) >= maxModels {
		clear(c.brokenLoads)
	}
	c.brokenLoads[key] = b
}

// rejectBroken is the error for a request for files that the registry found broken. It counts as a failed load, once in
// brokenFor. Called with mu held.
func (c *Cache) rejectBroken(src *source) *LoadError {
	err := &LoadError{Reason: ReasonBadFormat, What: label(src.model, src.version), Err: errors.New(src.problem), Public: src.problem}
	c.rememberBroken(src, err)
	c.reportLoadFailure(src, err, true) // the registry has logged it
	return err
}
