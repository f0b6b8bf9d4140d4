package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// digest is the SHA-256 sum of a key.
type digest = [sha256.Size]byte

// keySet holds the keys as read once from the key file and API_KEYS. It never changes.
type keySet struct {
	byDigest map[digest]*Key
	names    []string // sorted
}

// newKeySet joins the entries of API_KEYS and the key file.
func newKeySet(fromVariable, fromFile []entry) (*keySet, error) {
	all := slices.Concat(fromVariable, fromFile)
	var problems problemList
	checkUnique(all, &problems)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	s := &keySet{byDigest: make(map[digest]*Key, len(all))}
	for i := range all {
		s.byDigest[all[i].digest] = &all[i].Key
		s.names = append(s.names, all[i].Name)
	}
	slices.Sort(s.names)
	return s, nil
}

// checkUnique reports names and secrets that occur twice.
func checkUnique(entries []entry, problems *problemList) {
	names, digests := map[string]int{}, map[digest]int{}
	for _, e := range entries {
		if first, ok := names[e.Name]; ok && e.Name != "" {
			problems.add(e.line, "name %q is taken%s", clip(e.Name), whereFound(first))
		} else {
			names[e.Name] = e.line
		}
		if first, ok := digests[e.digest]; ok && e.digest != (digest{}) {
			problems.add(e.line, "the key of %q is the same as the one%s", clip(e.Name), whereFound(first))
		} else {
			digests[e.digest] = e.line
		}
	}
}

func whereFound(line int) string {
	if line == 0 {
		return " in API_KEYS"
	}
	return fmt.Sprintf(" in line %d", line)
}
