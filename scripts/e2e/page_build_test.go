package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Node isn't needed to build the proxy: without it the build goes on, and one line says how to get the live page.
func TestPageBuildWithoutNode(t *testing.T) {
	onceWithMock(t)
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
	output, err := build("--if-possible")
	if err != nil || strings.Count(output, "\n") != 1 || !strings.Contains(output, "/ is a plain table") || !strings.Contains(output, "install Node 20") {
		t.Errorf("where it may be left out: %v, %q", err, output)
	}
	if output, err := build(); err == nil || !strings.Contains(output, "install Node 20") {
		t.Errorf("where it is asked for: %v, %q", err, output)
	}
	built := filepath.Join(page, "dist", "index.html")
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(built, []byte("<!doctype html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if output, err := build("--if-possible"); err != nil || output != "" {
		t.Errorf("where it is built already: %v, %q", err, output)
	}
}

// The live page is in every build unless somebody leaves it out.
func TestBuildsHaveTheLivePage(t *testing.T) {
	onceWithMock(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is missing")
	}
	commands := func(args ...string) string {
		cmd := exec.Command("make", append([]string{"-n", "-C", filepath.Join("..", ".."), "mock"}, args...)...)
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make -n mock: %v\n%s", err, output)
		}
		return string(output)
	}
	if got := commands(); !strings.Contains(got, "scripts/build-ui.sh --if-possible") || strings.Contains(got, "noui") {
		t.Errorf("as it comes:\n%s", got)
	}
	if got := commands("UI=0"); strings.Contains(got, "build-ui.sh") || !strings.Contains(got, "noui") {
		t.Errorf("without the page:\n%s", got)
	}
}
