package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// probe drives a running server from outside and reports each check as a line.
type probe struct {
	url, key, model string
	metricsURL      string // where METRICS_ADDR put the metrics; otherwise url
	metricsPath     string
	client          *http.Client
	out             io.Writer
	metricsOff      bool // PROMETHEUS_ENABLED=false
	failures        int
	ctx             context.Context // of the whole run
}

const routerPath = "/metrics/router"

// maxProbeBytes bounds what is read of one reply.
const maxProbeBytes = 64 << 20

// testMonitoring drives every monitoring endpoint of a running server and checks shape and numbers. It fails when a check does.
func testMonitoring(ctx context.Context, p program) error {
	t, err := newProbe(ctx, p)
	if err != nil {
		return err
	}
	defer t.client.CloseIdleConnections()
	fmt.Fprintf(t.out, "testing %s\n", t.url)
	if _, err := t.get("/livez"); err != nil {
		return fmt.Errorf("no server answers (start one with make run or make mock): %w", err)
	}
	t.check("/livez says ok", t.livez)
	t.check("/health has the documented shape", t.health)
	t.check("/status has the documented shape", t.status)
	t.check("/models has the documented shape", t.models)
	t.check("/readyz says yes, or why not", t.readyz)
	t.check("errors are JSON with type, message and request id", t.errors)
	t.checkMetrics()
	if t.failures > 0 {
		return fmt.Errorf("%d checks failed", t.failures)
	}
	_, err = fmt.Fprintln(t.out, "all checks passed")
	return err
}

// newProbe finds the server by --url, or where the settings say that it listens.
func newProbe(ctx context.Context, p program) (*probe, error) {
	c, err := readConfig(nil, p.environ)
	if err != nil {
		return nil, err
	}
	key := "demo-key"
	if len(c.APIKeys) > 0 {
		_, key, _ = strings.Cut(c.APIKeys[0], ":")
	}
	t := &probe{out: p.stdout, ctx: ctx, client: &http.Client{Timeout: 5 * time.Minute}}
	flags := flag.NewFlagSet("test-monitoring", flag.ContinueOnError)
	flags.SetOutput(p.stderr)
	flags.StringVar(&t.url, "url", ownURL(c), "where the server listens")
	flags.StringVar(&t.key, "key", key, "API key for one inference; empty: none is made")
	flags.StringVar(&t.model, "model", "", "model for the inference; empty: the server's default")
	flags.StringVar(&t.metricsURL, "metrics-url", metricsURL(c.MetricsAddr), "where the metrics are served; empty: there as well")
	flags.StringVar(&t.metricsPath, "metrics-path", c.MetricsPath, "path of the metrics page")
	if err := flags.Parse(p.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, errUsage
		}
		return nil, fmt.Errorf("flags: %w", err)
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is not expected: %w", flags.Arg(0), errUsage)
	}
	t.url, t.metricsURL = strings.TrimSuffix(t.url, "/"), strings.TrimSuffix(t.metricsURL, "/")
	if t.metricsURL == "" {
		t.metricsURL = t.url
	}
	return t, nil
}

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

func (t *probe) check(what string, f func() error) {
	if err := f(); err != nil {
		t.failures++
		fmt.Fprintf(t.out, "FAIL  %s: %v\n", what, err)
		return
	}
	fmt.Fprintf(t.out, "ok    %s\n", what)
}

// page is a reply that was read.
type page struct {
	status int
	header http.Header
	body   []byte
}

func (t *probe) get(path string) (page, error) { return t.send("GET", path, "") }

func (t *probe) send(method, path, body string, headers ...string) (page, error) {
	base := t.url
	if path == t.metricsPath || path == routerPath {
		base = t.metricsURL
	}
	request, err := http.NewRequestWithContext(t.ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		return page{}, fmt.Errorf("make request: %w", err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := t.client.Do(request)
	if err != nil {
		return page{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxProbeBytes))
	if err != nil {
		return page{}, fmt.Errorf("read %s: %w", path, err)
	}
	got := page{response.StatusCode, response.Header, text}
	if got.header.Get("X-Request-Id") == "" {
		return got, fmt.Errorf("%s has no X-Request-Id", path)
	}
	return got, nil
}

// decode gets a page that must be 200 and JSON with exactly the fields of v, or more where more is allowed.
func (t *probe) decode(path string, v any) error {
	got, err := t.get(path)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return fmt.Errorf("status %d", got.status)
	}
	if kind := got.header.Get("Content-Type"); kind != "application/json" {
		return fmt.Errorf("Content-Type %q", kind)
	}
	return unmarshal(got.body, v)
}

func unmarshal(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w in %.200s", err, body)
	}
	return nil
}

// scrape reads the metrics page.
func (t *probe) scrape() (series, error) {
	got, err := t.get(t.metricsPath)
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, fmt.Errorf("status %d", got.status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(got.body))
	if err != nil {
		return nil, fmt.Errorf("the page can't be parsed: %w", err)
	}
	return families, nil
}
