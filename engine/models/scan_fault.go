package models

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// faultTime is how long what was found before counts while a disk or network fails.
const faultTime = 30 * time.Second

// entryState is what scans remember of one entry of the models directory.
type entryState struct {
	intact     []foundModel // its models at the last scan without a fault; nil: there was none
	faultSince time.Time    // zero: the last scan met no fault
}

// readEntry returns the models of an entry that read finds. While a fault keeps it from reading everything, they are
// those of the last scan without one, at most for faultTime. key is the entry's name, and whether it is a file.
func (p *scanPass) readEntry(key string, read func() []foundModel) []foundModel {
	p.fault = nil
	found := read()
	if p.fault == nil {
		if len(found) > 0 {
			p.entries[key] = entryState{intact: found}
		}
		return found
	}
	state := p.scanner.entries[key]
	if state.faultSince.IsZero() {
		state.faultSince = p.now
	}
	p.entries[key] = state
	if state.intact == nil || p.now.Sub(state.faultSince) >= faultTime {
		return found
	}
	p.warnOnce("fault "+key, "model files can't be read now, what was found before stays for a while", "entry", key, "err", p.fault)
	return state.intact
}

// noteFault keeps the error in mind when it says nothing of what is there.
func (p *scanPass) noteFault(err error) {
	if p.fault == nil && mayPass(err) {
		p.fault = err
	}
}

// mayPass reports whether an error comes from the system and isn't about the path: a later attempt may go well.
func mayPass(err error) bool {
	ofThePath := []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EINVAL}
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && !slices.Contains(ofThePath, errno)
}

// stat is os.Stat that notes faults.
func (p *scanPass) stat(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	p.noteFault(err)
	return info, err
}

// isThere reports whether there is anything under this path, maybe a link that leads nowhere.
func (p *scanPass) isThere(path string) bool {
	_, err := os.Lstat(path)
	p.noteFault(err)
	return err == nil
}

// readDir is readDir that notes and logs errors.
func (p *scanPass) readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := readDir(dir)
	if err != nil {
		p.noteFault(err)
		p.warnOnce("dir "+dir, "directory can't be read", "err", err)
	}
	return entries, err
}
