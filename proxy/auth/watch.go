package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// DefaultPoll is how often Watch looks at the file. A change is read once two looks in a row have found it the same, so that a file
// that is being written isn't read half.
const DefaultPoll = 500 * time.Millisecond

// Options say where keys come from.
type Options struct {
	File      string        // API_KEYS_FILE; "" for none
	List      string        // API_KEYS; "" for none
	ParseRate ParseRate     // reads rate_limit
	Poll      time.Duration // 0: DefaultPoll
}

// Reload is what came of a change of the file. After an error the keys are those from before.
type Reload struct {
	Keys int
	Err  error
}

// fileState is what Watch remembers between two looks.
type fileState struct {
	loaded   os.FileInfo // as it was when it was parsed last, well or not
	seen     os.FileInfo // as it was at the last look
	reported string      // the last error about looking at it or reading it
}

// Open reads the keys. It returns ErrNoKeys when there is none.
func Open(o Options) (*Keys, error) {
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	fixed, err := parseList(o.List)
	if err != nil {
		return nil, err
	}
	k := &Keys{options: o, fixed: fixed}
	var fromFile []entry
	if o.File != "" {
		info, err := os.Stat(o.File)
		if err != nil {
			return nil, fmt.Errorf("read API keys: %w", err)
		}
		k.file = fileState{loaded: info, seen: info}
		data, err := readFile(o.File)
		if err != nil {
			return nil, err
		}
		if fromFile, err = parseNamed(o.File, data, o.ParseRate); err != nil {
			return nil, err
		}
	}
	s, err := newSet(fixed, fromFile)
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	if len(s.names) == 0 {
		return nil, ErrNoKeys
	}
	k.current.Store(s)
	return k, nil
}

// Watch follows the file until ctx ends, and calls report on its own goroutine after each change. A path that is a symbolic link is
// followed each time, since Kubernetes swaps the link of a mounted secret. One goroutine only may watch.
func (k *Keys) Watch(ctx context.Context, report func(Reload)) {
	if k.options.File == "" {
		return
	}
	ticker := time.NewTicker(k.options.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.look(report)
		}
	}
}

// look takes one look at the file.
func (k *Keys) look(report func(Reload)) {
	info, err := os.Stat(k.options.File)
	if err != nil {
		k.file.seen = nil
		k.unreadable(fmt.Errorf("read API keys: %w", err), report)
		return
	}
	settled := sameFile(info, k.file.seen)
	k.file.seen = info
	if !settled || sameFile(info, k.file.loaded) {
		return
	}
	data, err := readFile(k.options.File)
	if err != nil {
		k.unreadable(err, report)
		return
	}
	k.file.loaded, k.file.reported = info, ""
	err = k.reload(data)
	report(Reload{Err: err, Keys: k.Len()})
}

// unreadable reports an error once. Each further look tries again: a change of owner or permissions, which may put it right, doesn't
// show in what sameFile compares.
func (k *Keys) unreadable(err error, report func(Reload)) {
	k.file.loaded = nil
	if k.file.reported != err.Error() {
		k.file.reported = err.Error()
		report(Reload{k.Len(), err})
	}
}

func (k *Keys) reload(data []byte) error {
	fromFile, err := parseNamed(k.options.File, data, k.options.ParseRate)
	if err != nil {
		return err
	}
	s, err := newSet(k.fixed, fromFile)
	if err != nil {
		return fmt.Errorf("API keys in %s: %w", k.options.File, err)
	}
	k.current.Store(s)
	return nil
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func readFile(path string) (data []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read API keys: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read API keys from %s: %w", path, err)
	}
	return data, nil
}

func parseNamed(path string, data []byte, parseRate ParseRate) ([]entry, error) {
	entries, err := parseFile(data, parseRate)
	if err != nil {
		return nil, fmt.Errorf("API keys in %s:\n%w", path, err)
	}
	return entries, nil
}
