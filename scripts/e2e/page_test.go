package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Nobody needs Node to build the proxy: without it the build goes on, and one line says what to do for the page.
func TestPageBuildWithoutNode(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	for _, tool := range []string{"bash", "dirname", "find"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Skip(tool + " is missing")
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile(filepath.Join("..", "build-ui.sh"))
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(root, "proxy", "server", "page")
	for name, content := range map[string]string{
		filepath.Join(root, "scripts", "build-ui.sh"): string(script),
		filepath.Join(page, "src", "main.ts"):         "", filepath.Join(page, "package.json"): "{}",
		filepath.Join(page, "package-lock.json"): "{}", filepath.Join(page, "tsconfig.json"): "{}",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(root, "scripts", "build-ui.sh"), args...)
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := build("--if-possible")
	if err != nil || strings.Count(said, "\n") != 1 || !strings.Contains(said, "/ is a plain table") || !strings.Contains(said, "install Node 20") {
		t.Errorf("where it may be left out: %v, %q", err, said)
	}
	if said, err := build(); err == nil || !strings.Contains(said, "install Node 20") {
		t.Errorf("where it is asked for: %v, %q", err, said)
	}
	built := filepath.Join(page, "dist", "index.html")
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(built, []byte("<!doctype html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err := build("--if-possible"); err != nil || said != "" {
		t.Errorf("where it is built already: %v, %q", err, said)
	}
}
