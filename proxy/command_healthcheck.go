package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// healthcheckTimeout is under the second or more that container runtimes wait.
const healthcheckTimeout = 2 * time.Second

// healthcheck asks /livez of the proxy that runs on this machine with the same settings. It fails unless the answer is
// 200.
func healthcheck(ctx context.Context, inv invocation) error {
	c, err := loadConfig(inv.args, inv.environ)
	if err != nil {
		return err
	}
	if c.Port == 0 {
		return errors.New("PORT=0 lets the proxy choose a port, so nobody knows which one to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	url := localURL(c) + "/livez"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	// The certificate is for the name by which clients come, and this connection doesn't leave the machine.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the running proxy: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers with status %d", url, res.StatusCode)
	}
	_, err = io.WriteString(inv.stdout, "ok\n")
	return err
}

// localURL is where a proxy with these settings can be reached from its own machine.
func localURL(c *Config) string {
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	host := c.Host
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(c.Port))
}
