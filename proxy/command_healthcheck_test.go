package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// healthcheckSettings are what a container's health check finds in its environment: the proxy's settings, with the port
// that it got.
func healthcheckSettings(t *testing.T, r *runningProxy, more ...string) []string {
	t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"HOST=0.0.0.0", "PORT=" + u.Port(), "API_KEYS=demo:demo-key"}, more...)
}

func TestHealthcheck(t *testing.T) {
	r := startProxy(t, "API_KEYS=demo:demo-key")
	environ := healthcheckSettings(t, r)
	if out, _, err := runCommand(t, "", environ, "healthcheck"); err != nil || out != "ok\n" {
		t.Errorf("of a proxy that waits for its engine: %q, %v", out, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runCommand(t, "", environ, "healthcheck"); err == nil {
		t.Errorf("a proxy that has ended is healthy: %q", out)
	}
}

func TestHealthcheckReadsTheConfigurationFile(t *testing.T) {
	r := startProxy(t, "API_KEYS=demo:demo-key")
	_, port, _ := strings.Cut(strings.TrimPrefix(r.url, "http://"), ":")
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("server: {port: "+port+"}\nsecurity: {auth_disabled: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := runCommand(t, "", []string{"CONFIG_FILE=" + file}, "healthcheck"); err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

func TestHealthcheckThroughTLS(t *testing.T) {
	cert, key := writeCertificate(t)
	tls := []string{"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}
	r := startProxy(t, append(tls, "API_KEYS=demo:demo-key")...)
	if out, _, err := runCommand(t, "", healthcheckSettings(t, r, tls...), "healthcheck"); err != nil {
		t.Errorf("with TLS: %q, %v", out, err)
	}
	if out, _, err := runCommand(t, "", healthcheckSettings(t, r), "healthcheck"); err == nil {
		t.Errorf("without TLS the server is healthy: %q", out)
	}
}

func TestHealthcheckOfProxyWithAllConnectionsInUse(t *testing.T) {
	cert, key := writeCertificate(t)
	for name, more := range map[string][]string{"plain": nil, "TLS": {"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}} {
		more = append(more, "API_KEYS=demo:demo-key", "MAX_CONNECTIONS=1")
		r := startProxy(t, more...)
		environ := healthcheckSettings(t, r, more...)
		_, address, _ := strings.Cut(r.url, "://")
		held, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if out, _, err := runCommand(t, "", environ, "healthcheck"); err != nil || out != "ok\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestHealthcheckNeedsTheRightAnswer(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	_, port, err := net.SplitHostPort(other.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := runCommand(t, "", []string{"AUTH_DISABLED=true", "PORT=" + port}, "healthcheck"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("another server on the port: %v", err)
	}
	if _, _, err := runCommand(t, "", []string{"AUTH_DISABLED=true", "PORT=0"}, "healthcheck"); err == nil || !strings.Contains(err.Error(), "PORT=0") {
		t.Errorf("with an unknown port: %v", err)
	}
}

func TestOwnURL(t *testing.T) {
	for host, want := range map[string]string{
		"0.0.0.0": "http://127.0.0.1:8000", "::": "http://[::1]:8000", "::1": "http://[::1]:8000", "10.0.0.7": "http://10.0.0.7:8000", "db.local": "http://db.local:8000",
	} {
		if got := localURL(&Config{Host: host, Port: 8000}); got != want {
			t.Errorf("HOST=%s is asked at %s, want %s", host, got, want)
		}
	}
	if got := localURL(&Config{Host: "0.0.0.0", Port: 8443, TLSCert: "cert.pem"}); got != "https://127.0.0.1:8443" {
		t.Errorf("with TLS: %s", got)
	}
}

// writeCertificate makes a certificate for a name that isn't the loopback's.
func writeCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	return writeCertificateUntil(t, time.Now().Add(time.Hour))
}

func writeCertificateUntil(t *testing.T, end time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end, DNSNames: []string{"inference.example"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := map[string][]byte{"CERTIFICATE": cert, "PRIVATE KEY": private}
	for kind, content := range files {
		if err := os.WriteFile(filepath.Join(dir, kind), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(fmt.Errorf("write %s: %w", kind, err))
		}
	}
	return filepath.Join(dir, "CERTIFICATE"), filepath.Join(dir, "PRIVATE KEY")
}
