// Package native holds tests of the scripts that build the native libraries.
package native

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cuda runs a line of bash after cuda.sh was read, with nothing but dir/bin and the system's programs on the PATH.
// A toolkit that the machine has is out of sight.
func cuda(t *testing.T, dir, line string, env ...string) (stdout, stderr string, err error) {
	t.Helper()
	prelude := `set -euo pipefail; say() { echo "$*" >&2; }; die() { say "$*"; exit 1; }; . ./cuda.sh; default_toolkit=$DIR/default; `
	cmd := exec.Command("bash", "-c", prelude+line)
	cmd.Env = append([]string{"DIR=" + dir, "PATH=" + filepath.Join(dir, "bin") + ":" + systemPrograms(t, dir)}, env...)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), errors.String(), err
}

// systemPrograms is a directory with links to what cuda.sh calls: nvcc or nvidia-smi may lie beside them in /usr/bin.
func systemPrograms(t *testing.T, dir string) string {
	t.Helper()
	programs := filepath.Join(dir, "system")
	if err := os.MkdirAll(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bash", "cp", "dirname", "mkdir", "paste", "realpath", "sed", "sort", "wc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(name, "isn't installed")
		}
		if err := os.Symlink(path, filepath.Join(programs, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return programs
}

func program(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestWhereTheToolkitIs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		programs, links map[string]string // of links the targets
		home, want      string
	}{
		"none":                           {},
		"the usual place, not on PATH":   {programs: map[string]string{"default/bin/nvcc": ""}, want: "default"},
		"on the PATH":                    {programs: map[string]string{"bin/nvcc": "", "default/bin/nvcc": ""}, want: "."},
		"a link on the PATH":             {programs: map[string]string{"kit/bin/nvcc": ""}, links: map[string]string{"bin/nvcc": "kit/bin/nvcc"}, want: "kit"},
		"a link to a wrapper":            {programs: map[string]string{"wrap/lib/ccache": ""}, links: map[string]string{"bin/nvcc": "wrap/lib/ccache"}, want: "."},
		"CUDA_HOME before both":          {programs: map[string]string{"home/bin/nvcc": "", "bin/nvcc": "", "default/bin/nvcc": ""}, home: "home", want: "home"},
		"CUDA_HOME that isn't one":       {programs: map[string]string{"default/bin/nvcc": ""}, home: "home"},
		"a directory without a compiler": {programs: map[string]string{"default/bin/ptxas": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for path, script := range test.programs {
				program(t, filepath.Join(dir, path), script)
			}
			for link, target := range test.links {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(filepath.Join(dir, target), filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			var env []string
			if test.home != "" {
				env = []string{"CUDA_HOME=" + filepath.Join(dir, test.home)}
			}
			got, stderr, err := cuda(t, dir, "installed_toolkit", env...)
			want := ""
			if test.want != "" {
				want = filepath.Join(dir, test.want)
			}
			if got != want || (err == nil) != (want != "") || stderr != "" {
				t.Errorf("got %q, %v, stderr %q; want %q", got, err, stderr, want)
			}
		})
	}
}

const (
	nvcc13 = "75 80 86 87 88 89 90 100 110 103 120 121"
	nvcc12 = "50 52 53 60 61 62 70 72 75 80 86 87 89 90 100 101 120"
	nvcc11 = "35 37 50 52 53 60 61 62 70 72 75 80 86 87 89 90"
)

func TestForWhichCardsNvccCompiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		known, smi, variants string
		want, problem        string
	}{
		"no card":                    {known: nvcc13, want: "75-real;80-real;86-real;89-real;90-real;100-real;120-real;100-virtual"},
		"no card, before Blackwell":  {known: nvcc11, want: "75-real;80-real;86-real;89-real;90-real;90-virtual"},
		"no card, far in the future": {known: "130 140", problem: "compiles for none of"},
		"Hopper":                     {known: nvcc13, smi: "echo 9.0", want: "90-real"},
		"Blackwell":                  {known: nvcc13, smi: "echo 12.0", want: "120-real"},
		"eight alike":                {known: nvcc13, smi: "for i in 1 2 3 4 5 6 7 8; do echo 9.0; done", want: "90-real"},
		"two kinds":                  {known: nvcc13, smi: "echo 12.0; echo 8.6", want: "86-real;120-real"},
		"newer than nvcc":            {known: nvcc11, smi: "echo 12.0", want: "90-virtual"},
		"newer, after 120 and 121, whose code nobody else runs": {known: nvcc13, smi: "echo 13.0", want: "110-virtual"},
		"two that are newer":             {known: nvcc11, smi: "echo 12.0; echo 10.0", want: "90-virtual"},
		"known, and of no number listed": {known: nvcc12, smi: "echo 10.3", want: "101-virtual"},
		"older than nvcc":                {known: nvcc13, smi: "echo 6.1", problem: "none as old as a card here (compute capability without the dot: 61)"},
		"one of two is older than nvcc":  {known: nvcc13, smi: "echo 7.0; echo 9.0", problem: "70, 90"},
		"an old driver":                  {known: nvcc11, smi: `echo 'Field "compute_cap" is not a valid field to query.'; exit 2`, want: "75-real;80-real;86-real;89-real;90-real;90-virtual"},
		"a driver that doesn't answer":   {known: nvcc11, smi: "echo 'NVIDIA-SMI has failed'; exit 9", want: "75-real;80-real;86-real;89-real;90-real;90-virtual"},
		"an image, on a machine with a card": {known: nvcc11, smi: "echo 9.0", variants: "all",
			want: "75-real;80-real;86-real;89-real;90-real;90-virtual"},
		"nvcc fails": {known: "", problem: "--list-gpu-arch failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			list := "exit 1"
			if test.known != "" {
				list = "for a in " + test.known + "; do echo compute_$a; done"
			}
			program(t, filepath.Join(dir, "bin/nvcc"), list)
			if test.smi != "" {
				program(t, filepath.Join(dir, "bin/nvidia-smi"), test.smi)
			}
			got, stderr, err := cuda(t, dir, "choose_architectures", "CUDACXX="+filepath.Join(dir, "bin/nvcc"), "VARIANTS="+test.variants)
			if got != test.want || !strings.Contains(stderr, test.problem) || (err == nil) != (test.problem == "") {
				t.Errorf("got %q, %v, stderr %q; want %q, %q", got, err, stderr, test.want, test.problem)
			}
		})
	}
}

// prepare_cuda decides between the CPU, what is installed and what is fetched.
func TestWhenABuildHasCUDA(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cuda          string
		installed     bool
		set, argument string
		want, problem string
	}{
		"nothing asked, nothing there":        {want: "0"},
		"nothing asked, a toolkit off PATH":   {installed: true, want: "1 default 90-real 90-virtual"},
		"refused, though there is a toolkit":  {cuda: "0", installed: true, want: "0"},
		"asked, a toolkit there":              {cuda: "1", installed: true, want: "1 default 90-real 90-virtual"},
		"asked, nothing there: it is fetched": {cuda: "1", want: "1 fetched 90-real 90-virtual"},
		"cards named":                         {cuda: "1", installed: true, set: "61;70-virtual", want: "1 default 61 70-virtual"},
		"the key, before it is fetched":       {cuda: "1", argument: "--key", problem: "run scripts/cuda-toolkit.sh"},
		"the key, with a toolkit":             {installed: true, argument: "--key", want: "1 default 90-real 90-virtual"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			list := "echo compute_90"
			if test.installed {
				program(t, filepath.Join(dir, "default/bin/nvcc"), list)
			}
			// Stands for cuda-toolkit.sh, which is tried by hand: it fetches half a gigabyte.
			program(t, filepath.Join(dir, "cuda-toolkit.sh"), `
if [ -x "$DIR/default/bin/nvcc" ]; then echo "$DIR/default"; exit; fi
echo "$DIR/fetched"
[ "${1:-}" != --key ] || exit 0
mkdir -p "$DIR/fetched/bin"; cp "$DIR/nvcc" "$DIR/fetched/bin/nvcc"`)
			program(t, filepath.Join(dir, "nvcc"), list)
			line := `here=$DIR
prepare_cuda ` + test.argument + `
[ "$CUDA" = 1 ] || { echo "$CUDA${toolkit:-}"; exit 0; }
[ "$(type -P nvcc)" = "$toolkit/bin/nvcc" ] || echo "nvcc is $(type -P nvcc)"
echo "$CUDA ${toolkit#"$DIR/"} ${CUDA_ARCHS//;/ }"`
			got, stderr, err := cuda(t, dir, line, "CUDA="+test.cuda, "CUDA_ARCHS="+test.set)
			if got != test.want || !strings.Contains(stderr, test.problem) || (err == nil) != (test.problem == "") {
				t.Errorf("got %q, %v, stderr %q; want %q, %q", got, err, stderr, test.want, test.problem)
			}
		})
	}
}

// NVIDIA's licence goes along with its libraries; a toolkit without the text is told, not passed over.
func TestAToolkitWithoutItsLicenceIsTold(t *testing.T) {
	t.Parallel()
	const line = `toolkit=$DIR; CUDA_ARCHS=90-real; say_what_cuda_takes`
	dir := t.TempDir()
	if _, stderr, err := cuda(t, dir, line); err != nil || !strings.Contains(stderr, "there is no "+dir+"/EULA.txt") {
		t.Errorf("%v, %q", err, stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "EULA.txt"), []byte("terms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := cuda(t, dir, line); err != nil || strings.Contains(stderr, "EULA.txt") {
		t.Errorf("with its text: %v, %q", err, stderr)
	}
}
