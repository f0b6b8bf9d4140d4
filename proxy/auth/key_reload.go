package auth

import (
	"context"
	"fmt"
	"os"
	"time"
)

// DefaultPollInterval is how often Watch checks the file. A changed file is read once two checks in a row have found it
// the same, so that a file that is still being written isn't read half.
const DefaultPollInterval = 500 * time.Millisecond

// Reload is the result of reading a changed file. After an error the keys from before stay in use.
type Reload struct {
	Keys int
	Err  error
}

// fileState is what Watch remembers between two checks.
type fileState struct {
	parsed      os.FileInfo // when it was parsed last, with success or without
	lastSeen    os.FileInfo // at the last check
	reportedErr string      // the last error of os.Stat or of reading it that was reported
}

// Watch follows the file until ctx ends, and calls report on its own goroutine after each change. A path that is a
// symbolic link is followed each time, since Kubernetes swaps the link of a mounted secret. Only one goroutine may call
// Watch.
func (k *Keys) Watch(ctx context.Context, report func(Reload)) {
	if k.options.File == "" {
		return
	}
	ticker := time.NewTicker(k.options.PollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.checkFile(report)
		}
	}
}

// checkFile checks the file once.
func (k *Keys) checkFile(report func(Reload)) {
	info, err := os.Stat(k.options.File)
	if err != nil {
		k.fileState.lastSeen = nil
		k.reportUnreadable(fmt.Errorf("read API keys: %w", err), report)
		return
	}
	unchanged := isSameFile(info, k.fileState.lastSeen)
	k.fileState.lastSeen = info
	if !unchanged || isSameFile(info, k.fileState.parsed) {
		return
	}
	data, err := readFile(k.options.File)
	if err != nil {
		k.reportUnreadable(err, report)
		return
	}
	k.fileState.parsed, k.fileState.reportedErr = info, ""
	err = k.reload(data)
	report(Reload{Err: err, Keys: k.Len()})
}

// reportUnreadable reports an error once. Each further check tries again: a change of owner or permissions, which may
// fix it, doesn't show in what isSameFile compares.
func (k *Keys) reportUnreadable(err error, report func(Reload)) {
	k.fileState.parsed = nil
	if k.fileState.reportedErr != err.Error() {
		k.fileState.reportedErr = err.Error()
		report(Reload{k.Len(), err})
	}
}

func (k *Keys) reload(data []byte) error {
	fromFile, err := parseNamed(k.options.File, data, k.options.ParseRate)
	if err != nil {
		return err
	}
	s, err := newKeySet(k.fromVariable, fromFile)
	if err != nil {
		return fmt.Errorf("API keys in %s: %w", k.options.File, err)
	}
	k.current.Store(s)
	return nil
}

func isSameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
