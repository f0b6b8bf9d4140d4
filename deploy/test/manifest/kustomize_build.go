// Package manifest builds the Kubernetes manifests, decodes them strictly and checks what no type can: that the names,
// ports, paths, settings and metrics that one manifest uses are defined in another, or in the docs. The images and a
// real container runtime are tested in scripts/pod.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"tandem/deploy/test/docs"
)

// Directory of the manifests within the project.
const Directory = "deploy/kubernetes"

// Overlays lists the overlays.
func Overlays() ([]string, error) {
	root, err := docs.Root()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(root, Directory, "overlays"))
	if err != nil {
		return nil, fmt.Errorf("list overlays: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// kustomizeProgram builds kustomize once and returns its path in the build cache.
var kustomizeProgram = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "kustomize").Output()
	if err != nil {
		return "", fmt.Errorf("build kustomize: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Build renders a directory with a kustomization.
func Build(dir string) ([]byte, error) {
	kustomize, err := kustomizeProgram()
	if err != nil {
		return nil, err
	}
	c := exec.Command(kustomize, "build", dir)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	text, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("kustomize build %s: %w: %s", dir, err, stderr.String())
	}
	if warnings := strings.TrimSpace(stderr.String()); warnings != "" {
		return nil, fmt.Errorf("kustomize build %s warns: %s", dir, warnings)
	}
	return text, nil
}

// BuildOverlay renders one of the overlays.
func BuildOverlay(name string) ([]byte, error) {
	root, err := docs.Root()
	if err != nil {
		return nil, err
	}
	return Build(filepath.Join(root, Directory, "overlays", name))
}

// Compose renders the base with any components, also those of no overlay.
func Compose(dir string, components ...string) ([]byte, error) {
	root, err := docs.Root()
	if err != nil {
		return nil, err
	}
	up, err := filepath.Rel(dir, filepath.Join(root, Directory))
	if err != nil {
		return nil, fmt.Errorf("find the manifests: %w", err)
	}
	text := fmt.Sprintf("resources: [%s/base]\ncomponents:\n", up)
	for _, c := range components {
		text += fmt.Sprintf("  - %s/components/%s\n", up, c)
	}
	return BuildText(dir, text)
}

// BuildText renders a kustomization that is written to dir.
func BuildText(dir, text string) ([]byte, error) {
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write kustomization: %w", err)
	}
	return Build(dir)
}

// moduleDir returns the directory of a module that this one depends on.
func moduleDir(path string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", errors.New("module " + path + " isn't downloaded")
	}
	return dir, nil
}
