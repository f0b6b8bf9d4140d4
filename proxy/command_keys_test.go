package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestKeysCommandsFitTogether(t *testing.T) {
	entry, shown, err := runCommand(t, "", nil, "keys", "new", "alice")
	if err != nil {
		t.Fatal(err)
	}
	secret, _, _ := strings.Cut(shown, "\n")
	hash, _, err := runCommand(t, secret+"\n", nil, "keys", "hash")
	if err != nil || !strings.Contains(entry, strings.TrimSpace(hash)) {
		t.Errorf("the entry %q doesn't hold the hash %q of the secret, %v", entry, hash, err)
	}
	file := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(file, []byte("keys:\n"+entry), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := runCommand(t, "", []string{"API_KEYS_FILE=" + file, "PORT=9000"}, "check-config", "--rate-limit=off")
	if err != nil || !strings.Contains(out, "1 API keys") || !regexp.MustCompile(`(?m)^PORT +9000 +variable$`).MatchString(out) ||
		!regexp.MustCompile(`(?m)^RATE_LIMIT +off +flag$`).MatchString(out) {
		t.Errorf("check-config: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte("keys: [{name: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := runCommand(t, "", []string{"API_KEYS_FILE=" + file}, "check-config"); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("a key file with a mistake: %v", err)
	}
}
