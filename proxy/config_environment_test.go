package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheckConfigLooksAtTheCertificate(t *testing.T) {
	cert, key := writeCertificate(t)
	_, otherKey := writeCertificate(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ cert, key, want, file string }{
		"another key":        {cert, otherKey, "variable TLS_KEY_FILE: ", otherKey},
		"no key":             {cert, missing, "variable TLS_KEY_FILE: can't be read", missing},
		"no certificate":     {missing, key, "variable TLS_CERT_FILE: can't be read", missing},
		"not a certificate":  {garbage, key, "variable TLS_CERT_FILE: ", garbage},
		"not a key":          {cert, garbage, "variable TLS_KEY_FILE: ", garbage},
		"exchanged":          {key, cert, "variable TLS_CERT_FILE: ", key},
		"a directory as key": {cert, filepath.Dir(key), "variable TLS_KEY_FILE: can't be read", filepath.Dir(key)},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{"AUTH_DISABLED=true", "TLS_CERT_FILE=" + c.cert, "TLS_KEY_FILE=" + c.key}
			for _, args := range [][]string{{"check-config"}, {"check-config", "--port=many"}} {
				_, _, err := runCommand(t, "", env, args...)
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.file) {
					t.Errorf("%v: %v; want %q and %s", args, err, c.want, c.file)
				}
				if len(args) > 1 && !strings.Contains(err.Error(), "--port") {
					t.Errorf("the other mistake isn't told: %v", err)
				}
			}
		})
	}
	if _, warnings, err := runCommand(t, "", []string{"AUTH_DISABLED=true", "TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, "check-config"); err != nil || strings.Contains(warnings, "certificate") {
		t.Errorf("a good pair: %v, %s", err, warnings)
	}
	cert, key = writeCertificateUntil(t, time.Now().Add(-time.Minute))
	_, warnings, err := runCommand(t, "", []string{"AUTH_DISABLED=true", "TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, "check-config")
	if err != nil || !strings.Contains(warnings, "warning: ") || !strings.Contains(warnings, cert) || !strings.Contains(warnings, "ended on") {
		t.Errorf("a certificate that ended: %v, %q", err, warnings)
	}
}

// What runs beside a proxy must not stop at a certificate that it doesn't need.
func TestDrainNeedsNoCertificate(t *testing.T) {
	cert, key := writeCertificate(t)
	r := startProxy(t, "AUTH_DISABLED=true", "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runCommand(t, "", r.environ, "drain"); err != nil || !strings.Contains(out, "draining") {
		t.Errorf("drain: %q, %v", out, err)
	}
}

func TestFileLimitWarning(t *testing.T) {
	for _, c := range []struct {
		limit       uint64
		connections int
		warned      bool
	}{{1024, 4096, true}, {4096, 4096, true}, {65536, 4096, false}, {1024, 512, false}, {1 << 63, 262144, false}} {
		text := openFileLimitWarning(c.limit, c.connections)
		if (text != "") != c.warned {
			t.Errorf("%d files for %d connections: %q", c.limit, c.connections, text)
		}
		for _, want := range []string{"MAX_CONNECTIONS", "ulimit -n", "LimitNOFILE"} {
			if c.warned && !strings.Contains(text, want) {
				t.Errorf("no %s in %q", want, text)
			}
		}
	}
}
