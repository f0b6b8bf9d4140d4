package unit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"tandem/deploy/test/binaries"
	"tandem/deploy/test/docs"
)

// unitFiles returns the files of deploy/systemd.
func unitFiles(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, name := range []string{"tandem-proxy.service", "tandem-engine.service", "config.yaml"} {
		text, err := docs.Read("deploy/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = text
	}
	return all
}

func problems(all map[string]string) []string {
	units := make(map[string]Unit)
	for name := range services {
		u, err := Parse(all[name])
		if err != nil {
			return []string{err.Error()}
		}
		units[name] = u
	}
	var tree map[string]map[string]any
	if err := yaml.UnmarshalStrict([]byte(all["config.yaml"]), &tree); err != nil {
		return []string{err.Error()}
	}
	config := make(map[string]string)
	for section, keys := range tree {
		for key, value := range keys {
			config[section+"."+key] = fmt.Sprint(value)
		}
	}
	return Check(units, config)
}

func TestUnits(t *testing.T) {
	for _, p := range problems(unitFiles(t)) {
		t.Error(p)
	}
}

// Each mutation breaks one thing, which must be found.
func TestEveryCheckCanFail(t *testing.T) {
	const proxy, engine, config = "tandem-proxy.service", "tandem-engine.service", "config.yaml"
	for _, m := range []struct{ file, old, new, want string }{
		{proxy, "tandem-proxy serve", "tandem-proxy", "not \"/usr/local/bin/tandem-proxy serve\""},
		{proxy, "check-config", "check", "isn't a command of tandem-proxy"},
		{engine, "tandem-engine supervise", "tandem-engine serve", "not \"/usr/local/bin/tandem-engine supervise\""},
		{proxy, "Environment=CONFIG_FILE", "Environment=CONFIG", "CONFIG, which it doesn't know"},
		{engine, "CONFIG_FILE=/etc/tandem/config.yaml", "CONFIG_FILE=/etc/tandem.yaml", "reads \"/etc/tandem.yaml\""},
		{engine, "Environment=CONFIG_FILE", "Environment=PORT=1\nEnvironment=CONFIG_FILE", "PORT, which it doesn't know"},
		{proxy, "Environment=CONFIG_FILE", "Environment=TMPDIR=/run/tandem\nEnvironment=CONFIG_FILE", "TMPDIR, which it doesn't know"},
		{engine, "Environment=TMPDIR=/run/tandem\n", "", "leaves its heartbeat in \"\""},
		{engine, "CUDA_CACHE_PATH=/var/cache/tandem/cuda", "CUDA_CACHE_PATH=/tmp/cuda", "keeps the kernels that a driver compiles in \"/tmp/cuda\""},
		{engine, "TMPDIR=/run/tandem", "TMPDIR=/tmp", "leaves its heartbeat in \"/tmp\""},
		{engine, "User=tandem", "User=root", "User is \"root\""},
		{proxy, "ProtectSystem=strict", "ProtectSystem=full", "ProtectSystem"},
		{proxy, "CapabilityBoundingSet=\n", "", "CapabilityBoundingSet"},
		{engine, "Restart=on-failure", "Restart=no", "not started again"},
		{proxy, "RestartForceExitStatus=SIGHUP SIGPIPE", "RestartForceExitStatus=SIGHUP", "not started again when SIGPIPE ends it"},
		{engine, "RestartForceExitStatus=SIGHUP SIGPIPE\n", "", "not started again when SIGHUP ends it"},
		{proxy, "StartLimitIntervalSec=0\n", "", "stays down after some failed starts"}, // five within 10 s by default
		{engine, "StartLimitIntervalSec=0", "StartLimitIntervalSec=10min\nStartLimitBurst=5", "stays down after some failed starts"},
		{engine, "KillMode=mixed", "KillMode=control-group", "signals go elsewhere"},
		{proxy, "TimeoutStopSec=150s", "TimeoutStopSec=90s", "killed after 1m30s"},
		{config, "server:\n", "server:\n  drain_timeout: 300s\n", "a drain may take 5m9s"},
		{proxy, "RuntimeDirectory=tandem", "RuntimeDirectory=proxy", "may not write to ENGINE_SOCKET"},
		{proxy, "RuntimeDirectoryPreserve=yes", "RuntimeDirectoryPreserve=no", "take the socket from the other"},
		{config, "cache_dir: /var/cache/tandem", "cache_dir: /srv/cache", "may not write to CACHE_DIR"},
		{config, "dir: /var/lib/tandem/models", "dir: /models", "models elsewhere"},
		{config, "cache_dir", "cache_directory", "models.cache_directory, which docs/settings.md doesn't know"},
		{engine, "After=tandem-proxy.service", "Before=tandem-proxy.service", "isn't stopped before the proxy"},
		{engine, "[Unit]\n", "[Unit]\nRequires=tandem-proxy.service\n", "Requires= would stop"},
	} {
		all := unitFiles(t)
		if !strings.Contains(all[m.file], m.old) {
			t.Errorf("%s has no %q to break", m.file, m.old)
			continue
		}
		all[m.file] = strings.Replace(all[m.file], m.old, m.new, 1)
		if found := problems(all); !strings.Contains(strings.Join(found, "\n"), m.want) {
			t.Errorf("%s with %q instead of %q: %q, want %q", m.file, m.new, m.old, found, m.want)
		}
	}
}

// The programs accept the configuration file, with a key file made as docs/deploy.md says; systemd reads the units
// without a warning.
func TestProgramsAndSystemdAcceptThem(t *testing.T) {
	dir := t.TempDir()
	built, err := binaries.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := unitFiles(t)
	entries, err := exec.Command("sh", "-c", `{ echo keys:; "$0" keys new team-a; }`, built.Proxy).Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"keys.yaml": string(entries), "config.yaml": strings.ReplaceAll(all["config.yaml"], "/etc/tandem", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := exec.Command(built.Proxy, "check-config")
	check.Env = []string{"CONFIG_FILE=" + filepath.Join(dir, "config.yaml")}
	if output, err := check.CombinedOutput(); err != nil || !strings.Contains(string(output), "1 API keys") {
		t.Errorf("check-config: %v: %s", err, output)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze isn't installed: systemd's own reading of the units is not checked")
		return
	}
	for name := range services {
		text := strings.ReplaceAll(all[name], "/usr/local/bin", dir)
		if output := systemdVerify(t, analyze, filepath.Join(dir, name), text); output != "" {
			t.Errorf("systemd-analyze verify: %s", output)
		}
		broken := strings.Replace(text, "RestrictNamespaces=", "RestrictNamespace=", 1)
		if output := systemdVerify(t, analyze, filepath.Join(dir, name), broken); !strings.Contains(output, "RestrictNamespace") {
			t.Errorf("systemd-analyze says of an unknown key: %q", output)
		}
	}
}

// systemdVerify returns what systemd-analyze says about a unit.
func systemdVerify(t *testing.T, analyze, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	if err != nil {
		return err.Error() + ": " + string(output)
	}
	var own []string
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, file) { // other lines are about units of this machine
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}
