// Package unit checks the systemd units of deploy/systemd.
package unit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/unit"

	"tandem/deploy/test/docs"
)

// Unit is a systemd unit: values by section and name. A name may occur more than once.
type Unit map[string]map[string][]string

// Parse parses a unit file.
func Parse(text string) (Unit, error) {
	options, err := systemd.DeserializeOptions(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read unit: %w", err)
	}
	u := make(Unit)
	for _, o := range options {
		if u[o.Section] == nil {
			u[o.Section] = make(map[string][]string)
		}
		u[o.Section][o.Name] = append(u[o.Section][o.Name], o.Value)
	}
	return u, nil
}

// value returns what a name is set to in the section Service.
func (u Unit) value(name string) string { return u.last("Service", name) }

// last returns the last value of a name, which counts.
func (u Unit) last(section, name string) string {
	v := u[section][name]
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// environment are the variables that the unit sets.
func (u Unit) environment() map[string]string {
	all := make(map[string]string)
	for _, line := range u["Service"]["Environment"] {
		for assignment := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(assignment, "=")
			all[name] = value
		}
	}
	return all
}

// serviceSpec is what the unit of one of our two programs must match.
type serviceSpec struct {
	program        string
	command        string
	commands       []string // that the program has
	usesSetting    func(docs.Setting) bool
	otherVariables []string // that aren't settings
}

var services = map[string]serviceSpec{
	"tandem-proxy.service":  {"tandem-proxy", "serve", []string{"serve", "check-config"}, func(s docs.Setting) bool { return s.Proxy }, nil},
	"tandem-engine.service": {"tandem-engine", "supervise", []string{"supervise"}, func(s docs.Setting) bool { return s.Engine }, []string{"TMPDIR", "CUDA_CACHE_PATH"}},
}

// hardening are settings that both units must have.
var hardening = map[string]string{
	"User": "tandem", "Group": "tandem", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes",
	"PrivateTmp": "yes", "RestrictSUIDSGID": "yes", "RestrictNamespaces": "yes", "SystemCallArchitectures": "native",
}

// Check returns everything that is wrong with the two units and their configuration file (settings by key).
func Check(units map[string]Unit, config map[string]string) []string {
	settings, err := docs.Settings()
	if err != nil {
		return []string{err.Error()}
	}
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	known := make(map[string]bool)
	for _, s := range settings {
		known[s.Key] = true
	}
	for key := range config {
		if !known[key] {
			add("config.yaml has the key %s, which docs/settings.md doesn't know", key)
		}
	}
	for name, s := range services {
		u := units[name]
		for _, p := range s.check(u, settings, config) {
			add("%s: %s", name, p)
		}
	}
	proxy, engine := units["tandem-proxy.service"], units["tandem-engine.service"]
	if !slices.Contains(engine["Unit"]["After"], "tandem-proxy.service") {
		add("the engine isn't stopped before the proxy")
	}
	for _, word := range []string{"Requires", "BindsTo", "PartOf", "Requisite"} {
		if len(engine["Unit"][word])+len(proxy["Unit"][word]) > 0 {
			add("%s= would stop one service with the other", word)
		}
	}
	return problems
}

func (s serviceSpec) check(u Unit, settings map[string]docs.Setting, config map[string]string) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if got, want := u.value("ExecStart"), "/usr/local/bin/"+s.program+" "+s.command; got != want {
		add("runs %q, not %q", got, want)
	}
	for _, line := range append(u["Service"]["ExecStartPre"], u["Service"]["ExecStart"]...) {
		words := strings.Fields(line)
		if len(words) != 2 || words[0] != "/usr/local/bin/"+s.program || !slices.Contains(s.commands, words[1]) {
			add("%q isn't a command of %s", line, s.program)
		}
	}
	environment := u.environment()
	for name := range environment {
		if setting, ok := settings[name]; (!ok || !s.usesSetting(setting)) && !slices.Contains(s.otherVariables, name) {
			add("is given %s, which it doesn't know", name)
		}
	}
	if path := environment["CONFIG_FILE"]; path != "/etc/tandem/config.yaml" {
		add("reads %q", path)
	}
	// The heartbeat and the marks beside it; the supervisor after this one reads them.
	if dir := "/run/" + u.value("RuntimeDirectory"); s.program == "tandem-engine" && environment["TMPDIR"] != dir {
		add("leaves its heartbeat in %q, which ends with the service; %s lasts", environment["TMPDIR"], dir)
	}
	if path := environment["CUDA_CACHE_PATH"]; s.program == "tandem-engine" && !strings.HasPrefix(path, "/var/cache/"+u.value("CacheDirectory")+"/") {
		add("keeps the kernels that a driver compiles in %q, which isn't in its cache directory", path)
	}
	for name, want := range hardening {
		if _, ok := u["Service"][name]; !ok || u.value(name) != want {
			add("%s is %q, not %q", name, u.value(name), want)
		}
	}
	if u.value("Restart") != "on-failure" || u.value("KillMode") != "mixed" {
		add("is not started again, or its signals go elsewhere than to its main process")
	}
	if u.last("Unit", "StartLimitIntervalSec") != "0" {
		add("stays down after some failed starts")
	}
	// systemd counts an end by them as clean, after which on-failure does nothing.
	for _, signal := range []string{"SIGHUP", "SIGPIPE"} {
		if !slices.Contains(strings.Fields(u.value("RestartForceExitStatus")), signal) {
			add("is not started again when %s ends it", signal)
		}
	}
	need := parseDuration(settingValue(settings, config, "DRAIN_DELAY")) + parseDuration(settingValue(settings, config, "DRAIN_TIMEOUT")) + 9*time.Second
	if stop := parseDuration(u.value("TimeoutStopSec")); stop < need {
		add("is killed after %v, while a drain may take %v", stop, need)
	}
	// Everything else is read-only.
	writable := []string{"/run/" + u.value("RuntimeDirectory") + "/", "/var/cache/" + u.value("CacheDirectory") + "/"}
	if u.value("RuntimeDirectoryPreserve") != "yes" {
		add("its end would take the socket from the other service")
	}
	for _, name := range []string{"ENGINE_SOCKET", "CACHE_DIR"} {
		path := settingValue(settings, config, name) + "/"
		if (name == "ENGINE_SOCKET" || s.program == "tandem-engine") && !slices.ContainsFunc(writable, func(dir string) bool { return strings.HasPrefix(path, dir) }) {
			add("may not write to %s=%s", name, path)
		}
	}
	if state := u.value("StateDirectory"); s.program == "tandem-engine" && settingValue(settings, config, "MODELS_DIR") != "/var/lib/"+state {
		add("has its models elsewhere than in StateDirectory=%s", state)
	}
	return problems
}

// settingValue is the value in the configuration file, or the default.
func settingValue(settings map[string]docs.Setting, config map[string]string, name string) string {
	if v, ok := config[settings[name].Key]; ok {
		return v
	}
	return settings[name].Default
}

func parseDuration(text string) time.Duration {
	d, _ := time.ParseDuration(text) // a bad one is 0, which the comparison finds
	return d
}
