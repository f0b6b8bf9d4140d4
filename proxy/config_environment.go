package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"tandem/schema/settings"
)

// checkEnvironment checks what the settings refer to: the certificate's files, and whether the process may open as many
// files as there may be connections. It returns what is wrong; what is only probably a mistake becomes a warning.
func (c *Config) checkEnvironment() (problems []settings.Problem) {
	if c.TLSCert != "" && c.TLSKey != "" {
		name, err := c.checkCertificate(time.Now())
		if err != nil {
			problems = append(problems, c.Values.Problem(name, err.Error()))
		}
	}
	if limit, ok := openFileLimit(); ok && c.Values.Good("MAX_CONNECTIONS") {
		c.warn(openFileLimitWarning(limit, c.MaxConnections))
	}
	return problems
}

func (c *Config) warn(text string) {
	if text != "" {
		c.Warnings = append(c.Warnings, text)
	}
}

// checkCertificate finds what would keep TLS from working, and the setting that is wrong.
func (c *Config) checkCertificate(now time.Time) (setting string, err error) {
	cert, err := os.ReadFile(c.TLSCert)
	if err != nil {
		return "TLS_CERT_FILE", fmt.Errorf("can't be read: %w", err)
	}
	key, err := os.ReadFile(c.TLSKey)
	if err != nil {
		return "TLS_KEY_FILE", fmt.Errorf("can't be read: %w", err)
	}
	leaf, err := firstCertificate(cert)
	if err != nil {
		return "TLS_CERT_FILE", fmt.Errorf("%s: %w", c.TLSCert, err)
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return "TLS_KEY_FILE", fmt.Errorf("%s holds no key that fits the certificate in %s: %w", c.TLSKey, c.TLSCert, err)
	}
	switch {
	case now.After(leaf.NotAfter):
		c.warn(fmt.Sprintf("the certificate in %s (TLS_CERT_FILE) ended on %s: clients that check it will refuse it", c.TLSCert, leaf.NotAfter.Format(time.RFC3339)))
	case now.Before(leaf.NotBefore):
		c.warn(fmt.Sprintf("the certificate in %s (TLS_CERT_FILE) holds only from %s on: clients that check it will refuse it", c.TLSCert, leaf.NotBefore.Format(time.RFC3339)))
	}
	return "", nil
}

// firstCertificate is the first certificate of the chain, which is the server's own.
func firstCertificate(chain []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(chain)
		if block == nil {
			return nil, errors.New("holds no certificate in PEM form")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		chain = rest
	}
}

// reservedFiles is how many files the proxy has open besides clients' connections, including refused ones that linger,
// and a reserve.
const reservedFiles = 192

// openFileLimitWarning is the warning about a limit that is too low, or nothing.
func openFileLimitWarning(limit uint64, connections int) string {
	if limit >= uint64(connections+reservedFiles) {
		return ""
	}
	return fmt.Sprintf("this process may have %d files open, too few for MAX_CONNECTIONS=%d, which takes %d: raise the limit (ulimit -n, LimitNOFILE in systemd), or lower MAX_CONNECTIONS",
		limit, connections, connections+reservedFiles)
}
