// Package binaries builds the two programs of the main module, the engine without llama.cpp, so that tests can run them
// as the manifests say.
package binaries

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tandem/deploy/test/docs"
)

// Paths are the paths of the two binaries.
type Paths struct{ Proxy, Engine string }

// Build compiles both into dir.
func Build(dir string) (Paths, error) {
	root, err := docs.Root()
	if err != nil {
		return Paths{}, err
	}
	b := Paths{Proxy: filepath.Join(dir, "tandem-proxy"), Engine: filepath.Join(dir, "tandem-engine")}
	for out, pkg := range map[string]string{b.Proxy: "./proxy", b.Engine: "./engine"} {
		c := exec.Command("go", "build", "-o", out, pkg)
		c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := c.CombinedOutput(); err != nil {
			return Paths{}, fmt.Errorf("build %s: %w: %s", pkg, err, output)
		}
	}
	return b, nil
}
