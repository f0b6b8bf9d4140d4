package main

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// linkCUDALibraries puts links to what the CUDA backend needs of the toolkit beside it, wherever this machine has it,
// since these libraries are ten times as large as all else. The notes name what was found, and what wasn't.
func linkCUDALibraries(lib, named string) (notes []string) {
	backend := filepath.Join(lib, "libggml-cuda.so")
	if _, err := os.Stat(backend); err != nil {
		return nil
	}
	dirs := cudaDirectories(named)
	for missing := []string{backend}; len(missing) > 0; {
		needed := toolkitLibraries(missing[0])
		missing = missing[1:]
		for _, name := range needed {
			beside := filepath.Join(lib, name)
			if _, err := os.Stat(beside); err == nil {
				continue
			}
			found := findIn(dirs, name)
			if found == "" {
				notes = append(notes, name+" isn't found: install CUDA's runtime libraries or pip's nvidia-cublas, and name their directory with -cuda-libraries")
				continue
			}
			_ = os.Remove(beside) // a link that leads nowhere
			if err := os.Symlink(found, beside); err != nil {
				notes = append(notes, err.Error())
				continue
			}
			notes = append(notes, found+" is used")
			missing = append(missing, found)
		}
	}
	return notes
}

// toolkitLibraries are the libraries of the toolkit that a library needs; the driver's is no part of it.
func toolkitLibraries(path string) (names []string) {
	file, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	all, err := file.ImportedLibraries()
	if err != nil {
		return nil
	}
	for _, name := range all {
		if strings.HasPrefix(name, "libcudart.") || strings.HasPrefix(name, "libcublas") {
			names = append(names, name)
		}
	}
	return names
}

func findIn(dirs []string, name string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// cudaDirectories are the places where toolkits and Python's packages keep these libraries. One that is named comes
// first, and then what scripts/cuda-toolkit.sh and scripts/build-llama.sh made.
func cudaDirectories(named string) (dirs []string) {
	if named != "" {
		dirs = append(dirs, named)
	}
	dirs = append(dirs, filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))...)
	var patterns []string
	if home := os.Getenv("CUDA_HOME"); home != "" {
		patterns = append(patterns, home+"/lib64", home+"/lib")
	}
	if cache := buildCache(); cache != "" {
		patterns = append(patterns, cache+"/cuda/*/lib", cache+"/llama.cpp/*/lib")
	}
	patterns = append(patterns, "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
	places := []string{"/usr/lib", "/usr/local/lib", "/opt/*/lib", "/opt/*/*/lib"}
	if home, err := os.UserHomeDir(); err == nil {
		places = append(places, home+"/.local/lib")
	}
	if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
		places = append(places, venv+"/lib")
	}
	for _, place := range places {
		patterns = append(patterns, place+"/python3*/*-packages/nvidia/*/lib")
	}
	for _, path := range pythonPath() {
		patterns = append(patterns, path+"/nvidia/*/lib")
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err == nil { // only a pattern that can't be read is an error
			dirs = append(dirs, found...)
		}
	}
	return dirs
}

// buildCache is where this repository's scripts keep what they build; empty without a home directory.
func buildCache() string {
	if dir := os.Getenv("TANDEM_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "tandem")
}

// pythonPath is where the Python of the PATH looks for packages: that of a virtual environment, conda or pyenv lies
// anywhere.
func pythonPath() []string {
	const within = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", "-c", `import sys; print("\n".join(sys.path))`).Output()
	if err != nil {
		return nil // none here
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
