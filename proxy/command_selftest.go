package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"tandem/proxy/selftest"
)

// testMonitoring tests every monitoring endpoint of a running server.
func testMonitoring(ctx context.Context, inv invocation) error {
	o, err := selftestOptions(inv)
	if err != nil {
		return err
	}
	return selftest.Run(ctx, o)
}

// selftestOptions finds the server by --url, or where the settings say that it listens.
func selftestOptions(inv invocation) (selftest.Options, error) {
	c, err := loadConfigUnchecked(nil, inv.environ)
	if err != nil {
		return selftest.Options{}, err
	}
	key := "demo-key"
	if len(c.APIKeys) > 0 {
		_, key, _ = strings.Cut(c.APIKeys[0], ":")
	}
	o := selftest.Options{Out: inv.stdout}
	flags := flag.NewFlagSet("test-monitoring", flag.ContinueOnError)
	flags.SetOutput(inv.stderr)
	flags.StringVar(&o.URL, "url", localURL(c), "where the server listens")
	flags.StringVar(&o.Key, "key", key, "API key for one inference; empty: none is made")
	flags.StringVar(&o.Model, "model", "", "model for the inference; empty: the server's default")
	flags.StringVar(&o.MetricsURL, "metrics-url", metricsURL(c.MetricsAddr), "where the metrics are served; empty: there as well")
	flags.StringVar(&o.MetricsPath, "metrics-path", c.MetricsPath, "path of the metrics page")
	if err := flags.Parse(inv.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return selftest.Options{}, errUsage
		}
		return selftest.Options{}, fmt.Errorf("flags: %w", err)
	}
	if flags.NArg() > 0 {
		return selftest.Options{}, fmt.Errorf("%q is not expected: %w", flags.Arg(0), errUsage)
	}
	o.URL, o.MetricsURL = strings.TrimSuffix(o.URL, "/"), strings.TrimSuffix(o.MetricsURL, "/")
	if o.MetricsURL == "" {
		o.MetricsURL = o.URL
	}
	return o, nil
}

// metricsURL is where METRICS_ADDR is reached from this machine; empty for none.
func metricsURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
