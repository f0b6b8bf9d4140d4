package auth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options say where keys come from.
type Options struct {
	File         string        // API_KEYS_FILE; "" for none
	List         string        // API_KEYS; "" for none
	ParseRate    ParseRate     // reads rate_limit
	PollInterval time.Duration // 0: DefaultPollInterval
}

// Open reads the keys. It returns ErrNoKeys when there is none.
func Open(o Options) (*Keys, error) {
	if o.PollInterval <= 0 {
		o.PollInterval = DefaultPollInterval
	}
	fromVariable, err := parseVariable(o.List)
	if err != nil {
		return nil, err
	}
	k := &Keys{options: o, fromVariable: fromVariable}
	var fromFile []entry
	if o.File != "" {
		info, err := os.Stat(o.File)
		if err != nil {
			return nil, fmt.Errorf("read API keys: %w", err)
		}
		k.fileState = fileState{parsed: info, lastSeen: info}
		data, err := readFile(o.File)
		if err != nil {
			return nil, err
		}
		if fromFile, err = parseNamed(o.File, data, o.ParseRate); err != nil {
			return nil, err
		}
	}
	s, err := newKeySet(fromVariable, fromFile)
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	if len(s.names) == 0 {
		return nil, ErrNoKeys
	}
	k.current.Store(s)
	return k, nil
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
