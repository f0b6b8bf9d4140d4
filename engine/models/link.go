package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// linkError is for a link that can't be followed. Its text names the link, for clients too; target is for the log.
type linkError struct {
	why    string
	target string
	err    error
}

func (e *linkError) Error() string { return e.why }
func (e *linkError) Unwrap() error { return e.err }

// detailOf is what the log is told beyond an error's own text.
func detailOf(err error) string {
	if l, ok := errors.AsType[*linkError](err); ok {
		return "link to " + l.target
	}
	return ""
}

// problemOf words an error about a file for clients.
func problemOf(file string, err error) string {
	if l, ok := errors.AsType[*linkError](err); ok {
		return l.why
	}
	return fmt.Sprintf("%s: %v", file, withoutPath(err))
}

// resolve gives the real path of name under dir, which must be a real path itself. Links are followed wherever they lead, unless the
// settings say that they must stay in the models directory.
func (v *visit) resolve(dir, name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%.100q leaves the model's directory", name)
	}
	path := filepath.Join(dir, name)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", brokenLink(path, name, err)
	}
	if rel, err := filepath.Rel(v.root, real); v.inside && (err != nil || !filepath.IsLocal(rel)) {
		return "", &linkError{
			why: fmt.Sprintf("%.100q is a link that leaves the models directory, which MODELS_FOLLOW_LINKS=false forbids", name), target: real,
		}
	}
	return real, nil
}

// brokenLink says in what way a path doesn't lead to a file.
func brokenLink(path, name string, err error) error {
	target, notLink := os.Readlink(path)
	switch {
	case notLink != nil && errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return &linkError{why: fmt.Sprintf("%.100q is a link whose target doesn't exist", name), target: target, err: err}
	case strings.Contains(err.Error(), "too many links"): // filepath has no error value for it
		return &linkError{why: fmt.Sprintf("%.100q is a link that leads in a circle", name), target: target, err: err}
	}
	return &linkError{why: fmt.Sprintf("%.100q can't be followed: %v", name, withoutPath(err)), target: target, err: err}
}

// withoutPath takes the path off an error of the file system: clients are told no paths of this machine.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// holds tells whether dir is outer or lies in it; both are real paths.
func holds(outer, dir string) bool {
	return dir == outer || strings.HasPrefix(dir, strings.TrimSuffix(outer, "/")+"/")
}
