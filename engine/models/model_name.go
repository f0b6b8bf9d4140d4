package models

import (
	"errors"
	"fmt"
	"strings"
)

// BaseVersion is the version that every model has: its weights without an adapter.
const BaseVersion = "base"

// maxNamePart bounds one part of a model's name and a version, in bytes; names become metric labels.
const maxNamePart = 96

var errBadName = errors.New("not a valid name")

// reservedNames have another meaning as values of metric labels.
var reservedNames = map[string]bool{"none": true, "unknown": true, "other": true}

// CheckName returns an error unless a model may have this name: name or org/name, each part a letter or digit and then
// letters, digits, dots, underscores and hyphens; none, unknown and other are reserved.
func CheckName(name string) error {
	org, rest, found := strings.Cut(name, "/")
	if reservedNames[name] {
		return fmt.Errorf("model name %q: %w: reserved", name, errBadName)
	}
	if !validNamePart(org) || found && !validNamePart(rest) {
		return fmt.Errorf("model name %.100q: %w", name, errBadName)
	}
	return nil
}

// checkVersion returns an error unless a version may have this name.
func checkVersion(name string) error {
	if name == BaseVersion || reservedNames[name] {
		return fmt.Errorf("version %q: %w: reserved", name, errBadName)
	}
	if !validNamePart(name) {
		return fmt.Errorf("version %.100q: %w", name, errBadName)
	}
	return nil
}

func validNamePart(s string) bool {
	if s == "" || len(s) > maxNamePart || !alphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

const (
	ggufSuffix   = ".gguf"
	packedSuffix = ".gguf.xz"
)

// ggufStem returns a model file's name without its ending; false for any other file.
func ggufStem(file string) (name string, packed, ok bool) {
	if s, found := strings.CutSuffix(file, packedSuffix); found {
		return s, true, s != ""
	}
	s, found := strings.CutSuffix(file, ggufSuffix)
	return s, false, found && s != ""
}

// maxSplitParts bounds the number of files of a split model.
const maxSplitParts = 9999

// parseSplitName reads "name-00002-of-00005" as ("name", 2, 5).
func parseSplitName(stem string) (name string, part, parts int, ok bool) {
	const tail = len("-00001-of-00001")
	if len(stem) <= tail {
		return "", 0, 0, false
	}
	t := stem[len(stem)-tail:]
	part, ok1 := fiveDigits(t[1:6])
	parts, ok2 := fiveDigits(t[10:])
	if t[0] != '-' || t[6:10] != "-of-" || !ok1 || !ok2 || part < 1 || part > parts || parts > maxSplitParts {
		return "", 0, 0, false
	}
	return stem[:len(stem)-tail], part, parts, true
}

func fiveDigits(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func splitPartName(name string, part, parts int) string {
	return fmt.Sprintf("%s-%05d-of-%05d%s", name, part, parts, ggufSuffix)
}
