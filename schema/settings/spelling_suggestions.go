package settings

import "strings"

// suggest returns "; did you mean …?" for a near miss, and nothing otherwise.
func suggest(name string, known []string, prefix string) string {
	if near := closestName(name, known); near != "" {
		return "; did you mean " + prefix + near + "?"
	}
	return ""
}

// suggestPath also finds a known key in the wrong section, and a variable's name used as a key.
func suggestPath(path string) string {
	key := path[strings.LastIndexByte(path, '.')+1:]
	for _, s := range All() {
		if s.Path != "" && (s.Key() == key || strings.EqualFold(s.Env, key)) {
			return "; did you mean " + s.Path + "?"
		}
	}
	var known []string
	for _, s := range All() {
		if s.Path != "" {
			known = append(known, s.Path, s.Section())
		}
	}
	return suggest(path, known, "")
}

func variables() []string {
	names := make([]string, len(settingsTable))
	for i := range settingsTable {
		names[i] = settingsTable[i].Env
	}
	return names
}

func flagNames(program Owner) []string {
	var names []string
	for _, s := range All() {
		if s.Owner.Uses(program) {
			names = append(names, s.Flag())
		}
	}
	return names
}

// closestName returns the known name with the fewest changes, if they are few for its length.
func closestName(name string, known []string) string {
	best, bestDistance := "", 1+max(1, len(name)/4)
	for _, k := range known {
		if d := editDistance(name, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// editDistance counts insertions, removals and replacements of bytes, and swaps of neighbours.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
