// Package programs builds the two programs of the main module, the engine without llama.cpp, so that what manifests say of them is tried.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tandem/deploy/test/docs"
)

// Built is where the programs are.
type Built struct{ Proxy, Engine string }

// Build compiles both into dir.
func Build(dir string) (Built, error) {
	root, err := docs.Root()
	if err != nil {
		return Built{}, err
	}
	b := Built{Proxy: filepath.Join(dir, "tandem-proxy"), Engine: filepath.Join(dir, "tandem-engine")}
	for out, pkg := range map[string]string{b.Proxy: "./proxy", b.Engine: "./engine"} {
		c := exec.Command("go", "build", "-o", out, pkg)
		c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if said, err := c.CombinedOutput(); err != nil {
			return Built{}, fmt.Errorf("build %s: %w: %s", pkg, err, said)
		}
	}
	return b, nil
}
