package auth

import (
	"crypto/sha256"
	"errors"
	"strings"
)

// parseVariable reads API_KEYS: name:secret, separated by commas. Errors never repeat a secret.
func parseVariable(s string) ([]entry, error) {
	var entries []entry
	var problems problemList
	for i, item := range strings.Split(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, secret, ok := strings.Cut(item, ":")
		if !ok {
			problems.add(0, "entry %d of API_KEYS: want name:secret", i+1)
			continue
		}
		if err := checkName(name); err != nil {
			problems.add(0, "entry %d of API_KEYS: the name has to be 1 to %d letters, digits, . _ -", i+1, maxNameBytes)
		}
		if secret == "" || len(secret) > MaxSecretBytes {
			problems.add(0, "entry %d of API_KEYS: the secret has to have 1 to %d bytes", i+1, MaxSecretBytes)
		}
		entries = append(entries, entry{Key: Key{Name: name, Enabled: true}, digest: sha256.Sum256([]byte(secret))})
	}
	checkUnique(entries, &problems)
	return entries, errors.Join(problems...)
}
