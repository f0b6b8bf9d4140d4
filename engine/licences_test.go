package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLicencesOfNVIDIA(t *testing.T) {
	const missing = "The text isn't here"
	for name, c := range map[string]struct {
		files  map[string]string // below a directory whose lib holds the backends
		want   string            // empty: nothing of NVIDIA
		absent string
	}{
		"a build for CPUs":     {map[string]string{"lib/libggml-cpu.so": "", "LICENSE.nvidia": "terms"}, "", ""},
		"beside the libraries": {map[string]string{"lib/libggml-cuda.so": "", "lib/LICENSE.nvidia": "terms of a pack"}, "terms of a pack", missing},
		"above them":           {map[string]string{"lib/libggml-cuda.so": "", "LICENSE.nvidia": "terms of a build"}, "terms of a build", missing},
		"none":                 {map[string]string{"lib/libggml-cuda.so": ""}, missing, "terms"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lib := filepath.Join(dir, "build", "lib")
			for file, text := range c.files {
				path := filepath.Join(dir, "build", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			link := filepath.Join(dir, "lib") // as make build has it beside the program
			if err := os.Symlink(lib, link); err != nil {
				t.Fatal(err)
			}
			for _, backends := range []string{lib, link} {
				var out, errors bytes.Buffer
				if code := run([]string{"licenses"}, testEnvironment(t, "BACKEND_DIR="+backends), &out, &errors); code != 0 {
					t.Fatalf("exit code %d: %s", code, &errors)
				}
				_, nvidia, there := strings.Cut(out.String(), cudaLicenceTitle)
				if there != (c.want != "") || !strings.Contains(nvidia, c.want) || c.absent != "" && strings.Contains(nvidia, c.absent) {
					t.Errorf("%s: of NVIDIA there is (%v) %q, want %q", backends, there, nvidia, c.want)
				}
			}
		})
	}
}
