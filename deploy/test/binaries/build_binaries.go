// Package binaries builds the two programs of the main module, so that tests can run them as the manifests say.
package binaries

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tandem/deploy/test/docs"
)

// Paths are the paths of the two binaries.
type Paths struct{ Proxy, Engine string }

func pathsIn(dir string) Paths {
	return Paths{Proxy: filepath.Join(dir, "tandem-proxy"), Engine: filepath.Join(dir, "tandem-engine")}
}

// Build compiles both into dir, the engine without llama.cpp.
func Build(dir string) (Paths, error) {
	root, err := docs.Root()
	if err != nil {
		return Paths{}, err
	}
	b := pathsIn(dir)
	for out, pkg := range map[string]string{b.Proxy: "./proxy", b.Engine: "./engine"} {
		c := exec.Command("go", "build", "-o", out, pkg)
		c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := c.CombinedOutput(); err != nil {
			return Paths{}, fmt.Errorf("build %s: %w: %s", pkg, err, output)
		}
	}
	return b, nil
}

// Native are the programs with llama.cpp, and what its engine loads.
type Native struct {
	Paths
	Backends string // directory of llama.cpp's libraries
	TestGPU  string // library of the GPU that the CPU plays
}

// ErrNoLibrary says that llama.cpp isn't built on this machine.
var ErrNoLibrary = errors.New("llama.cpp isn't built; run: make build")

// The race detector is what the tests of scripts/e2e have, so that nothing is compiled for these alone.
const buildNative = `
for library in llama llguidance; do [ -d "$(scripts/build-$library.sh --key)" ] || exit 3; done
lines=$(scripts/build-llama.sh --env)
eval "$lines"
mkdir -p "${0%/*}"
go build -race -o "$0" ./proxy
go build -race -tags llama -o "$1" ./engine
printf '%s\n%s\n' "$BACKEND_DIR" "$(scripts/testgpu/build.sh)"`

// BuildNative compiles both into dir with the llama.cpp of this machine; ErrNoLibrary: there is none.
func BuildNative(dir string) (Native, error) {
	root, err := docs.Root()
	if err != nil {
		return Native{}, err
	}
	n := Native{Paths: pathsIn(dir)}
	c := exec.Command("bash", "-euc", buildNative, n.Proxy, n.Engine)
	var problems strings.Builder
	c.Dir, c.Stderr = root, &problems
	output, err := c.Output()
	if c.ProcessState != nil && c.ProcessState.ExitCode() == 3 {
		return Native{}, ErrNoLibrary
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	if err != nil || len(lines) != 2 {
		return Native{}, fmt.Errorf("build with llama.cpp: %w: %s%s", err, output, problems.String())
	}
	n.Backends, n.TestGPU = lines[0], lines[1]
	return n, nil
}
