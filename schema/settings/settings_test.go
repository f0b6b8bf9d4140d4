package settings

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func fakeFiles(named map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := named[name]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	}
}

func load(program Owner, yaml string, args []string, env ...string) (*Values, error) {
	if yaml != "" {
		env = append(env, "CONFIG_FILE=/etc/config.yaml")
	}
	return Load(program, args, env, fakeFiles(map[string]string{"/etc/config.yaml": yaml}))
}

func TestDocumentedNamesAndDefaults(t *testing.T) {
	documented := []struct{ env, path, value string }{
		{"HOST", "server.host", "0.0.0.0"}, {"PORT", "server.port", "8000"}, {"LOG_LEVEL", "server.log_level", "info"},
		{"PROMETHEUS_ENABLED", "monitoring.prometheus_enabled", "true"}, {"METRICS_PATH", "monitoring.metrics_path", "/prometheus"},
		{"CUSTOM_METRICS", "monitoring.custom_metrics", "true"}, {"DEFAULT_MODEL", "models.default_model", "microsoft/DialoGPT-medium"},
		{"DEFAULT_VERSION", "models.default_version", "v1.0"}, {"CACHE_SIZE", "models.cache_size", "5"},
		{"API_KEY_HEADER", "security.api_key_header", "X-API-Key"}, {"RATE_LIMIT", "security.rate_limit", "5/minute"},
	}
	for _, d := range documented {
		if s := Find(d.env); s == nil || s.Path != d.path || s.Default != d.value {
			t.Errorf("%s: %+v, want %s = %s", d.env, s, d.path, d.value)
		}
	}
}

func TestListIsSound(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range All() {
		for _, name := range []string{s.Env, s.Flag(), s.Path} {
			if name != "" && seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		if isSection(s.Path) && s.Path != "" {
			t.Errorf("%s is a setting and a section", s.Path)
		}
		if _, err := s.parse(s.Default); err != nil {
			t.Errorf("%s: default %q: %v", s.Env, s.Default, err)
		}
		for _, bound := range []string{s.Min, s.Max} {
			if _, err := s.parseKind(bound); bound != "" && err != nil {
				t.Errorf("%s: bound %q: %v", s.Env, bound, err)
			}
		}
		if !strings.HasSuffix(s.Help, ".") || (s.Kind == Enum) != (len(s.Choices) > 0) {
			t.Errorf("%s: help or choices are incomplete", s.Env)
		}
	}
}

func TestPrecedence(t *testing.T) {
	const file = "server:\n  port: 1\n"
	cases := []struct {
		name   string
		yaml   string
		env    []string
		args   []string
		want   int
		source Source
	}{
		{"default", "", nil, nil, 8000, FromDefault},
		{"file", file, nil, nil, 1, FromFile},
		{"variable over file", file, []string{"PORT=2"}, nil, 2, FromEnv},
		{"flag over variable", file, []string{"PORT=2"}, []string{"--port=3"}, 3, FromFlag},
		{"flag and value apart", file, []string{"PORT=2"}, []string{"-port", "4"}, 4, FromFlag},
		{"empty variable is unset", file, []string{"PORT="}, nil, 1, FromFile},
		{"same as the default is set", "", []string{"PORT=8000"}, nil, 8000, FromEnv},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, err := load(Proxy, c.yaml, c.args, c.env...)
			if err != nil {
				t.Fatal(err)
			}
			source, _ := v.Source("PORT")
			if v.Int("PORT") != c.want || source != c.source || v.IsSet("PORT") != (c.source != FromDefault) {
				t.Errorf("PORT = %d from %s, set %v", v.Int("PORT"), source, v.IsSet("PORT"))
			}
		})
	}
}

func TestConfigFileCanBeAFlag(t *testing.T) {
	v, err := Load(Engine, []string{"--config-file=/a.yaml"}, []string{"CONFIG_FILE=/b.yaml"}, fakeFiles(map[string]string{"/a.yaml": "models:\n  cache_size: 9\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, where := v.Source("CACHE_SIZE"); v.Int("CACHE_SIZE") != 9 || where != "a.yaml:2" {
		t.Errorf("CACHE_SIZE = %d from %s", v.Int("CACHE_SIZE"), where)
	}
}

func TestEveryKind(t *testing.T) {
	v, err := load(Proxy, `
server:
  cors_origins: [https://a.example, "https://b.example"]
  max_body_bytes: 2MiB
  read_timeout: 1m30s
monitoring: # all keys below are commented out
security:
  rate_limit: 0
models:
  default_version: 1.0
  memory_high_watermark: 0.5
`, []string{"--auth-disabled", "--trusted-proxies", "10.0.0.0/8, ::1"}, "LOG_FORMAT=json")
	if err != nil {
		t.Fatal(err)
	}
	if got := v.List("CORS_ORIGINS"); !slices.Equal(got, []string{"https://a.example", "https://b.example"}) {
		t.Errorf("list = %q", got)
	}
	if got := v.List("TRUSTED_PROXIES"); !slices.Equal(got, []string{"10.0.0.0/8", "::1"}) {
		t.Errorf("list in a flag = %q", got)
	}
	if v.Bytes("MAX_BODY_BYTES") != 2<<20 || v.Duration("READ_TIMEOUT") != 90*time.Second || v.Rate("RATE_LIMIT").Count != 0 ||
		!v.Bool("AUTH_DISABLED") || v.String("LOG_FORMAT") != "json" || v.Float("MEMORY_HIGH_WATERMARK") != 0.5 || v.String("DEFAULT_VERSION") != "1.0" {
		t.Errorf("values: %+v", v.set)
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := load(Proxy, `server:
  port: 70000
  prot: 1
  host: [a]
  port: 2
models:
  cache_size: many
  rate_limit: 5/minute
engine:
  parallel: -1
  context:
    deep: 1
securty:
  rate_limit: 1
monitoring: yes
restart:
  wait: 30
`, []string{"--cach-size=3", "--parallel=3", "stray", "--queue-capacity"}, "RATE_LIMIT=5 a minute", "PARALLEL=nonsense", "API_KEYS=a:s3cret", "DOMAINS=ok,not ok")
	want := []string{
		`flag --cach-size: is not a setting; did you mean --cache-size?`,
		`flag --parallel: is a setting of the engine`,
		`argument stray: is not expected here`,
		`flag --queue-capacity: needs a value`,
		`config.yaml:2 server.port: "70000" must be 0 to 65535`,
		`config.yaml:3 server.prot: is not a setting; did you mean server.port?`,
		`config.yaml:4 server.host: must be a string, not a list`,
		`config.yaml:5 server.port: is there twice, first in line 2`,
		`config.yaml:7 models.cache_size: "many" must be a whole number`,
		`config.yaml:8 models.rate_limit: is not a setting; did you mean security.rate_limit?`,
		`config.yaml:10 engine.parallel: "-1" must be 1 to 256`,
		`config.yaml:11 engine.context: must be a int, not a mapping`,
		`config.yaml:13 securty: is not a setting; did you mean security?`,
		`config.yaml:15 monitoring: must hold keys below it, not a single value`,
		`config.yaml:17 restart.wait: "30" needs a unit, for example 30s`,
		`variable DOMAINS: "ok,not ok" "not ok": must be at most 63`,
		`variable RATE_LIMIT: "5 a minute" must be like 5/minute`,
	}
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("error is %v", err)
	}
	got := strings.Split(err.Error(), "\n")
	for _, w := range want {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, w) }) {
			t.Errorf("missing: %s", w)
		}
	}
	if len(got) != len(want) || t.Failed() {
		t.Errorf("%d problems, want %d:\n%s", len(got), len(want), err)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Error("a secret is shown")
	}
}

func TestBadFiles(t *testing.T) {
	cases := map[string]string{
		"not YAML":       "a: [",
		"two documents":  "server:\n  port: 1\n---\nserver:\n  port: 2\n",
		"a list":         "- a\n",
		"too big":        strings.Repeat("# comment\n", maxFileBytes/8),
		"no value":       "server:\n  port:\n",
		"merge key":      "a: &a\n  port: 1\nserver:\n  <<: *a\n",
		"bool for text":  "server:\n  host: true\n",
		"comma in list":  "server:\n  cors_origins: ['https://a.example,b']\n",
		"alias as value": "server:\n  host: &h x\n  log_level: *h\n",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := load(Engine, text, nil); err == nil {
				t.Error("was taken")
			}
		})
	}
	if _, err := Load(Proxy, nil, []string{"CONFIG_FILE=/missing"}, fakeFiles(nil)); err == nil {
		t.Error("a missing file was taken")
	}
	for _, text := range []string{"", "# only a comment\n", "---\n", "server:\n"} {
		if _, err := load(Proxy, text, nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestValuesOfEachKind(t *testing.T) {
	cases := []struct {
		env  string
		good []string
		bad  []string
	}{
		{"RATE_LIMIT", []string{"1/second", "100/day", "0", "off", "OFF", "0/hour"}, []string{"5", "5/min", "-1/minute", "/minute", "5/minute/day", "2000000/day", ""}},
		{"DRAIN_TIMEOUT", []string{"0", "1h", "1m30s"}, []string{"-1s", "2h", "soon", "5"}},
		{"MAX_BODY_BYTES", []string{"1024", "1.5MiB", "64MiB", "2 MB"}, []string{"1", "1TB", "-1MiB", "MiB", "8mib"}},
		{"METRICS_PATH", []string{"/metrics", "/a/b"}, []string{"metrics", "/", "/a?b", ""}},
		{"METRICS_ADDR", []string{"127.0.0.1:9090", ":9090", "[::1]:1"}, []string{"9090", "a:b", "a:99999"}},
		{"API_KEY_HEADER", []string{"X-Key"}, []string{"X Key", "authorization", ""}},
		{"TRUSTED_PROXIES", []string{"10.0.0.1", "10.0.0.0/8,::1/128"}, []string{"example.org"}},
		{"CORS_ORIGINS", []string{"*", "http://localhost:3000"}, []string{"localhost", "https://a/b"}},
		{"DEFAULT_MODEL", []string{"demo", "org/name-1.0_x"}, []string{"../etc", "a/b/c", "none", "-a", ""}},
		{"DEFAULT_VERSION", []string{"v1.0", "base"}, []string{"a/b", ""}},
		{"PRELOAD", []string{"default", "demo@v1.0,org/other"}, []string{"a@b/c", "@v1"}},
		{"ENGINE_PEER_UIDS", []string{"0,10001"}, []string{"root", "-1"}},
		{"LOG_LEVEL", []string{"debug"}, []string{"INFO", "trace"}},
		{"PROMETHEUS_ENABLED", []string{"true", "Off", "1"}, []string{"maybe", "2"}},
		{"ENGINE_SOCKET", []string{"/run/x.sock"}, []string{strings.Repeat("x", 101)}},
		{"GPU_SPLIT", []string{"none", "3,1", "0.5", ""}, []string{"none,1", "1,none", "-1"}},
		{"MEMORY_HIGH_WATERMARK", []string{"0.5", "1"}, []string{"1.1", "NaN", "Inf", "80%"}},
	}
	for _, c := range cases {
		for _, text := range c.good {
			if _, err := Find(c.env).parse(text); err != nil {
				t.Errorf("%s=%q: %v", c.env, text, err)
			}
		}
		for _, text := range c.bad {
			if v, err := Find(c.env).parse(text); err == nil {
				t.Errorf("%s=%q was taken as %v", c.env, text, v)
			}
		}
	}
}

func TestMisspeltVariableWarns(t *testing.T) {
	v, err := load(Proxy, "", nil, "QUEUE_CAPACTY=1", "PATH=/bin", "HOSTS=x", "TLS_CERT_FIL=x")
	if err != nil {
		t.Fatal(err)
	}
	if w := v.Warnings(); len(w) != 2 || !strings.Contains(w[0], "QUEUE_CAPACITY") {
		t.Errorf("warnings = %q", w)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for flag, want := range map[string]error{"-h": ErrHelp, "--help": ErrHelp, "--version": ErrVersion} {
		if _, err := load(Proxy, "", []string{flag}); !errors.Is(err, want) {
			t.Errorf("%s: %v", flag, err)
		}
	}
	var b bytes.Buffer
	if err := WriteUsage(&b, Engine); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "--parallel (PARALLEL)") || strings.Contains(text, "--rate-limit") {
		t.Errorf("help of the engine:\n%s", text)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	v, err := load(Proxy, "", nil, "API_KEYS=me:s3cret")
	if err != nil {
		t.Fatal(err)
	}
	if v.Text("API_KEYS") != "***" || !slices.Equal(v.List("API_KEYS"), []string{"me:s3cret"}) {
		t.Errorf("shown as %q, read as %q", v.Text("API_KEYS"), v.List("API_KEYS"))
	}
}

func TestStoresOfRateLimits(t *testing.T) {
	for _, url := range []string{"redis://host", "redis://host:6379", "redis://user:password@host:6379/0", "rediss://:p%40ss@host:6380/12", "valkey://[::1]:6379", "valkeys://host",
		"redis://host:6379?db=3", "unix:///run/redis.sock", "unix://user:password@/run/redis.sock?db=2"} {
		if _, err := load(Proxy, "", nil, "RATE_LIMIT_STORE="+url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"host:6379", "http://host", "redis://", "redis://:s3cret@", "redis://host/", "redis://host/zero", "redis://host/-1", "redis://host/0/1", "redis://host/1?db=2",
		"redis://host?addr=other:6379", "redis://host?master_set=main", "rediss://host?skip_verify=true", "redis://me:s3cret#x@host", "redis://me:s3c/ret@host", "redis://me:s3cret@host:port",
		"unix://", "unix:///", "unix://s3cret/redis.sock", "unix:///run/redis.sock?db=x"} {
		_, err := load(Proxy, "", nil, "RATE_LIMIT_STORE="+url)
		if err == nil || !strings.Contains(err.Error(), "RATE_LIMIT_STORE") || strings.Contains(err.Error(), "s3c") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{"server:\n  port: 1\n", "a: &a [*a]\n", "---\n---\n", "server: {host: x, port: 0x10}\n", "? [a]\n: b\n", "%YAML 9\n", "server:\n  <<: {}\n", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := load(Proxy, text, nil)
		if v == nil || err != nil && err.Error() == "" {
			t.Errorf("values %v, error %v", v, err)
		}
	})
}
