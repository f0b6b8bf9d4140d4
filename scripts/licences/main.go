// Command licences writes the licence texts that each program prints for the third-party code in it: proxy/licences.txt
// and engine/licences.txt. They are made of the licence and notice files of the Go packages that are linked, and of the
// folder extra for everything else. With -check it writes nothing and fails when a file is stale. Whether a licence is
// acceptable is not checked.
//
//	go run ./scripts/licences [-check]
package main

import (
	"bytes"
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// nonModuleTexts are the licences of what isn't a Go module.
//
//go:embed extra
var nonModuleTexts embed.FS

// shippedProgram is one of our two programs.
type shippedProgram struct {
	name        string
	packagePath string
	buildTags   string // with these it links most
	outputFile  string // is written
	nonModules  []nonModule
}

// nonModule is third-party code that isn't a Go module.
type nonModule struct{ title, textFile string }

var shippedPrograms = []shippedProgram{
	{"tandem-proxy", "./proxy", "ui", "proxy/licences.txt", []nonModule{
		{"Go standard library and runtime", "go.txt"}, {"uPlot (of the live page)", "uplot.txt"},
	}},
	{"tandem-engine", "./engine", "llama", "engine/licences.txt", []nonModule{
		{"Go standard library and runtime", "go.txt"}, {"llama.cpp and ggml (in builds with the tag llama)", "llama.cpp.txt"},
		{"nlohmann/json (inside llama.cpp)", "json.txt"}, {"llguidance and the Rust crates in it (in builds with the tag llama)", "llguidance.txt"},
	}},
}

func main() {
	check := flag.Bool("check", false, "write nothing; fail when a file is stale")
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	var problems []error
	for _, p := range shippedPrograms {
		text, err := p.licenceText(root)
		if err != nil {
			problems = append(problems, fmt.Errorf("licences of %s: %w", p.name, err))
			continue
		}
		name := filepath.Join(root, filepath.FromSlash(p.outputFile))
		if current, err := os.ReadFile(name); err == nil && bytes.Equal(current, text) {
			continue
		}
		if check {
			problems = append(problems, fmt.Errorf("%s is stale; run: go run ./scripts/licences", p.outputFile))
			continue
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			problems = append(problems, err)
			continue
		}
		fmt.Println("wrote", p.outputFile)
	}
	return errors.Join(problems...)
}

// licenceText returns what the program prints. Modules with the same text share it.
func (p *shippedProgram) licenceText(root string) ([]byte, error) {
	titles := make(map[string][]string) // by text
	var order []string
	add := func(title, text string) {
		text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), " \n") + "\n"
		if titles[text] == nil {
			order = append(order, text)
		}
		if !slices.Contains(titles[text], title) {
			titles[text] = append(titles[text], title)
		}
	}
	for _, o := range p.nonModules {
		raw, err := nonModuleTexts.ReadFile("extra/" + o.textFile)
		if err != nil {
			return nil, err
		}
		add(o.title, string(raw))
	}
	packages, err := p.linkedPackages(root)
	if err != nil {
		return nil, err
	}
	for _, l := range packages {
		files, err := l.licenceFiles()
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			add(l.module, string(raw))
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "What %s contains besides its own code (MIT licence, see LICENSE).\n", p.name)
	for _, text := range order {
		fmt.Fprintf(&b, "\n==== %s\n\n%s", strings.Join(titles[text], "\n==== "), text)
	}
	return b.Bytes(), nil
}

// linkedPackage is a package of a third-party module.
type linkedPackage struct{ module, moduleDir, dir string }

// linkedPackages returns the third-party packages that the program links on the platform of the images, so that every
// machine writes the same. Without cgo, go list -e still names the packages that call llama.cpp.
func (p *shippedProgram) linkedPackages(root string) ([]linkedPackage, error) {
	cmd := exec.Command("go", "list", "-deps", "-tags", p.buildTags, "-e", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", p.packagePath)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	var all []linkedPackage
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) == 3 {
			all = append(all, linkedPackage{fields[0], fields[1], fields[2]})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("go list names no package that %s links", p.packagePath)
	}
	slices.SortFunc(all, func(a, b linkedPackage) int { return strings.Compare(a.module+a.dir, b.module+b.dir) })
	return all, nil
}

// licenceFiles returns the licence and notice files from the package's folder up to the module's. A module without any
// can't be shipped.
func (l *linkedPackage) licenceFiles() ([]string, error) {
	var found []string
	for dir := l.dir; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !e.IsDir() && isLicence(e.Name()) {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
		if dir == l.moduleDir || !strings.HasPrefix(dir, l.moduleDir) {
			break
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no licence file", l.module)
	}
	return found, nil
}

// isLicence reports whether a file's name is that of a licence or notice.
func isLicence(file string) bool {
	name := strings.ToUpper(file)
	stem, extension, _ := strings.Cut(name, ".")
	switch stem {
	case "LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS":
		return extension == "" || extension == "TXT" || extension == "MD"
	}
	return strings.HasPrefix(stem, "LICENSE-") || strings.HasPrefix(stem, "LICENCE-")
}
