package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// symlinkError is the error for a link that can't be followed. Its text names the link and is fit for clients; target
// is for the log.
type symlinkError struct {
	why    string
	target string
	err    error
}

func (e *symlinkError) Error() string { return e.why }
func (e *symlinkError) Unwrap() error { return e.err }

// linkDetail is what the log gets beyond an error's own text.
func linkDetail(err error) string {
	if l, ok := errors.AsType[*symlinkError](err); ok {
		return "link to " + l.target
	}
	return ""
}

// publicProblem is the text for clients of an error about a file.
func publicProblem(file string, err error) string {
	if l, ok := errors.AsType[*symlinkError](err); ok {
		return l.why
	}
	return fmt.Sprintf("%s: %v", file, withoutPath(err))
}

// resolveLinks returns the real path of name under dir, which must be a real path itself. Links are followed wherever
// they lead, unless linksInside says that they must stay in the models directory.
func (p *scanPass) resolveLinks(dir, name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%.100q leaves the model's directory", name)
	}
	path := filepath.Join(dir, name)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		p.noteFault(err)
		return "", brokenLinkError(path, name, err)
	}
	if rel, err := filepath.Rel(p.root, real); p.linksInside && (err != nil || !filepath.IsLocal(rel)) {
		return "", &symlinkError{
			why: fmt.Sprintf("%.100q is a link that leaves the models directory, which MODELS_FOLLOW_LINKS=false forbids", name), target: real,
		}
	}
	return real, nil
}

// brokenLinkError says why a path doesn't lead to a file.
func brokenLinkError(path, name string, err error) error {
	target, notLink := os.Readlink(path)
	switch {
	case notLink != nil && errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return &symlinkError{why: fmt.Sprintf("%.100q is a link whose target doesn't exist", name), target: target, err: err}
	case strings.Contains(err.Error(), "too many links"): // filepath has no error value for it
		return &symlinkError{why: fmt.Sprintf("%.100q is a link that leads in a circle", name), target: target, err: err}
	}
	return &symlinkError{why: fmt.Sprintf("%.100q can't be followed: %v", name, withoutPath(err)), target: target, err: err}
}

// withoutPath removes the path from an error of the file system: clients get no paths of this machine.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// pathContains reports whether dir is outer or lies in it; both are real paths.
func pathContains(outer, dir string) bool {
	return dir == outer || strings.HasPrefix(dir, strings.TrimSuffix(outer, "/")+"/")
}
