// Licences writes what each program has to say of the code of others in it: proxy/licences.txt and engine/licences.txt, from the licence
// and notice files beside the packages that are linked, and from extra for what isn't a Go module. With -check it writes nothing and fails
// when one of them isn't current.
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

// extra are texts of what isn't a Go module.
//
//go:embed extra
var extra embed.FS

// program is one of ours.
type program struct {
	name    string
	path    string // of its package
	tags    string // with which most is linked
	licence string // the file to write
	others  []other
}

// other is something that isn't a Go module.
type other struct{ title, file string }

var programs = []program{
	{"tandem-proxy", "./proxy", "ui", "proxy/licences.txt", []other{
		{"Go standard library and runtime", "go.txt"}, {"uPlot (of the live page)", "uplot.txt"},
	}},
	{"tandem-engine", "./engine", "llama", "engine/licences.txt", []other{
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
	for _, p := range programs {
		text, err := p.text(root)
		if err != nil {
			problems = append(problems, fmt.Errorf("licences of %s: %w", p.name, err))
			continue
		}
		name := filepath.Join(root, filepath.FromSlash(p.licence))
		if current, err := os.ReadFile(name); err == nil && bytes.Equal(current, text) {
			continue
		}
		if check {
			problems = append(problems, fmt.Errorf("%s is stale; run: go run ./scripts/licences", p.licence))
			continue
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			problems = append(problems, err)
			continue
		}
		fmt.Println("wrote", p.licence)
	}
	return errors.Join(problems...)
}

// text is what the program says. What has the same text shares it.
func (p *program) text(root string) ([]byte, error) {
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
	for _, o := range p.others {
		raw, err := extra.ReadFile("extra/" + o.file)
		if err != nil {
			return nil, err
		}
		add(o.title, string(raw))
	}
	packages, err := p.linked(root)
	if err != nil {
		return nil, err
	}
	for _, l := range packages {
		files, err := l.files()
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

// linked is a package of a module that isn't ours.
type linked struct{ module, moduleDir, dir string }

// linked are the packages of others, for the platform of the images, so that every machine writes the same. Without cgo go list names the
// files of llama.cpp's callers all the same.
func (p *program) linked(root string) ([]linked, error) {
	cmd := exec.Command("go", "list", "-deps", "-tags", p.tags, "-e", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", p.path)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, problem.Bytes())
	}
	var all []linked
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) == 3 {
			all = append(all, linked{fields[0], fields[1], fields[2]})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("go list names no package that %s links", p.path)
	}
	slices.SortFunc(all, func(a, b linked) int { return strings.Compare(a.module+a.dir, b.module+b.dir) })
	return all, nil
}

// files are the licences and notices from the package's folder up to its module's. A module without any can't be shipped.
func (l *linked) files() ([]string, error) {
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

// isLicence tells a text that must go along by its name.
func isLicence(file string) bool {
	name := strings.ToUpper(file)
	stem, extension, _ := strings.Cut(name, ".")
	switch stem {
	case "LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS":
		return extension == "" || extension == "TXT" || extension == "MD"
	}
	return strings.HasPrefix(stem, "LICENSE-") || strings.HasPrefix(stem, "LICENCE-")
}
