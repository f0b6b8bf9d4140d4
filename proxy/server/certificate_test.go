package server

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile, 1)
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.CertFile, o.KeyFile, o.ReadTimeout = certFile, keyFile, 200*time.Millisecond })
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", ts.address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	if _, err := io.WriteString(c, rawInfer(inferBody, "HTTP/1.1")); err != nil {
		t.Fatal(err)
	}
	a := receiveWithin(t, "request", asked, waitLimit)
	a.addText("The capital of France is Paris.")
	a.end(8)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, ts.read(response).body)

	if _, err := io.WriteString(c, rawInfer(inferBody, "HTTP/1.1")); err != nil {
		t.Fatal(err)
	}
	a = receiveWithin(t, "request", asked, waitLimit)
	c.Close()
	a.expectCancelled(t)

	_, silent := ts.dial()
	if _, err := silent.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("a client that never shakes hands: %v", err)
	}

	writeCertificate(t, certFile, keyFile, 2)
	s := ts.Server
	s.certs.mu.Lock()
	s.certs.lastCheck = time.Time{}
	s.certs.mu.Unlock()
	await.Until(t, waitLimit, "the new certificate is in use", func() bool {
		return dial().ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 2
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{keyFile: {Type: "PRIVATE KEY", Bytes: secret}, certFile: {Type: "CERTIFICATE", Bytes: cert}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
