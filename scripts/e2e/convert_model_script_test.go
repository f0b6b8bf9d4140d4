package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tandem/scripts/launch"
)

// These tests run scripts/convert-model.sh with a fake Python and a fake llama.cpp, since the real ones take gigabytes.

// fakePython makes virtual environments whose pip works while the file pip-works exists, and whose python writes its
// arguments to --outfile.
const fakePython = `#!/bin/bash
here=$(dirname "$0")
if [ "$1" = --version ]; then echo "Python 3.99"; exit; fi
[ "$1 $2" = "-m venv" ] || exit 1
mkdir -p "$3/bin"
printf '#!/bin/bash\n[ -e %q ] || { echo "no network" >&2; exit 1; }\n' "$here/pip-works" >"$3/bin/pip"
cat >"$3/bin/python" <<'END'
#!/bin/bash
all="$*"
while [ $# -gt 0 ]; do [ "$1" != --outfile ] || out=$2; shift; done
echo "$all" >"$out"
[[ $all != *broken* ]]
END
chmod +x "$3/bin/"*
`

type convertScript struct {
	t   *testing.T
	dir string
	env []string
}

func newConvertScript(t *testing.T) *convertScript {
	t.Helper()
	c := &convertScript{t: t, dir: t.TempDir()}
	c.env = launch.Environment("PYTHON="+c.path("python3"), "LLAMA_CPP_DIR="+c.path("llama.cpp"), "TANDEM_CACHE="+c.path("cache"))
	for name, text := range map[string]string{
		"llama.cpp/convert_hf_to_gguf.py": "", "llama.cpp/convert_lora_to_gguf.py": "",
		"hf/config.json": "{}", "broken/config.json": "{}", "peft/adapter_config.json": "{}", "pip-works": "", "python3": fakePython,
	} {
		if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *convertScript) path(name string) string { return filepath.Join(c.dir, name) }

// run runs the script. Arguments that begin with / are paths below the test's directory.
func (c *convertScript) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	for i, a := range args {
		if strings.HasPrefix(a, "/") {
			args[i] = c.path(a)
		}
	}
	return runScript(c.t, c.env, filepath.Join("..", "convert-model.sh"), args...)
}

func (c *convertScript) readFile(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Error(err)
	}
	return string(b)
}

func TestConvertPutsModelAndAdapterInPlace(t *testing.T) {
	onceWithMock(t)
	c := newConvertScript(t)
	if _, stderr, code := c.run("base", "/hf", "/models/org/name"); code != 0 {
		t.Fatalf("base: %d %s", code, stderr)
	}
	if got := c.readFile("models/org/name/model.gguf"); !strings.Contains(got, "convert_hf_to_gguf.py") || !strings.Contains(got, "--outtype q8_0") {
		t.Errorf("the converter got %s", got)
	}
	if _, stderr, code := c.run("adapter", "/peft", "/models/org/name", "v1.0"); code != 0 {
		t.Fatalf("adapter: %d %s", code, stderr)
	}
	if got := c.readFile("models/org/name/versions/v1.0.gguf"); !strings.Contains(got, "--base "+c.path("models/org/name/.source")) {
		t.Errorf("the converter got %s", got)
	}
	if left, _ := filepath.Glob(c.path("models/org/name/*/.convert-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConvertTellsWhatIsWrongBeforeItInstallsAnything(t *testing.T) {
	onceWithMock(t)
	c := newConvertScript(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "HF_DIR"},
		{[]string{"base", "/hf"}, 2, "HF_DIR"},
		{[]string{"turn", "/hf", "/models/m"}, 2, "HF_DIR"},
		{[]string{"base", "/nowhere", "/models/m"}, 1, "nowhere has no config.json"},
		{[]string{"base", "/hf", "/models/-m"}, 1, "isn't a valid name"},
		{[]string{"base", "/hf", "/models/none"}, 1, "reserved"},
		{[]string{"base", "/hf", "/models/m", "q4"}, 1, "'q4'"},
		{[]string{"adapter", "/nowhere", "/models/m", "v1"}, 1, "nowhere has no adapter_config.json"},
		{[]string{"adapter", "/peft", "/models/m", "base"}, 1, "reserved"},
		{[]string{"adapter", "/peft", "/models/m", "v/1"}, 1, "isn't a valid name"},
		{[]string{"adapter", "/peft", "/models/m", "v1"}, 1, "name the directory of the base model"},
	} {
		stdout, stderr, code := c.run(test.args...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) || strings.Contains(stderr, "installing") {
			t.Errorf("%v: %d\n%s%s", test.args, code, stdout, stderr)
		}
	}
	for _, flag := range []string{"--help", "-h", "help"} {
		stdout, _, code := c.run(flag)
		for _, want := range []string{"HF_DIR", "PEFT_DIR", "LLAMA_CPP_DIR", "PyTorch"} {
			if code != 0 || !strings.Contains(stdout, want) {
				t.Errorf("%s: %d, no %s in %s", flag, code, want, stdout)
			}
		}
	}
	if entries, err := os.ReadDir(c.path("models")); err == nil {
		t.Errorf("models has %v", entries)
	}
}

// A failed installation isn't taken for a good one the next time.
func TestConvertInstallsAnewAfterAFailure(t *testing.T) {
	onceWithMock(t)
	c := newConvertScript(t)
	if err := os.Remove(c.path("pip-works")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, stderr, code := c.run("base", "/hf", "/models/m")
		if code == 0 || !strings.Contains(stderr, "installing") || !strings.Contains(stderr, "could not be installed") {
			t.Errorf("%d %s", code, stderr)
		}
	}
	if err := os.WriteFile(c.path("pip-works"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := c.run("base", "/hf", "/models/m"); code != 0 {
		t.Errorf("with a network: %d %s", code, stderr)
	}
}

func TestConvertLeavesNothingOfAFailure(t *testing.T) {
	onceWithMock(t)
	c := newConvertScript(t)
	_, stderr, code := c.run("base", "/broken", "/models/m")
	if code == 0 || !strings.Contains(stderr, "convert_hf_to_gguf.py failed") {
		t.Errorf("%d %s", code, stderr)
	}
	if entries, _ := os.ReadDir(c.path("models/m")); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestConvertWithoutNpmNamesTheWaysOut(t *testing.T) {
	onceWithMock(t)
	c := newConvertScript(t)
	tools := c.path("tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bash", "env", "dirname", "basename", "sed", "mkdir", "mktemp", "rm"} {
		full, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(full, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.env = []string{"PATH=" + tools, "TANDEM_CACHE=" + c.path("cache")}
	_, stderr, code := c.run("base", "/hf", "/models/m")
	if code == 0 || !strings.Contains(stderr, "npm") || !strings.Contains(stderr, "LLAMA_CPP_DIR") || strings.Contains(stderr, "checksum") {
		t.Errorf("%d %s", code, stderr)
	}
}
