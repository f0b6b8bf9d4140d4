package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificateCheckInterval is how often, at most, a handshake checks whether the files have changed.
const certificateCheckInterval = 2 * time.Second

// certificates reloads a certificate when its files change. If the new pair can't be read, the old one stays in use.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu        sync.Mutex // guards the check
	lastCheck time.Time
	stamp     string // fileStamp of the pair in use
}

func loadCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log, lastCheck: time.Now()}
	c.stamp = c.fileStamp()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE, TLS_KEY_FILE: %w", err)
	}
	c.current.Store(&pair)
	return c, nil
}

// config has HTTP/1.1 as the only protocol on offer.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(), nil },
	}
}

func (c *certificates) get() *tls.Certificate {
	if c.mu.TryLock() {
		c.refresh(time.Now())
		c.mu.Unlock()
	}
	return c.current.Load()
}

// refresh reloads changed files. It must be called with mu held.
func (c *certificates) refresh(now time.Time) {
	if now.Sub(c.lastCheck) < certificateCheckInterval {
		return
	}
	c.lastCheck = now
	stamp := c.fileStamp()
	if stamp == c.stamp {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Error("the new TLS certificate can't be used; the one before stays", "file", c.certFile, "error", err)
		return
	}
	c.stamp = stamp
	c.current.Store(&pair)
	c.log.Info("TLS certificate reloaded", "file", c.certFile)
}

// fileStamp changes when a file does, also behind a symlink that was swapped.
func (c *certificates) fileStamp() string {
	stamp := ""
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprintf("%d %d;", info.Size(), info.ModTime().UnixNano())
		}
	}
	return stamp
}
