// Package selftest tests the monitoring endpoints of a running server from outside: it requests each of them, makes one
// inference, and checks the shape of the replies and that the metrics count what happened. It is the command
// test-monitoring.
package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Options of Run.
type Options struct {
	URL         string    // where the server listens, without a slash at the end
	MetricsURL  string    // where the metrics are served, see METRICS_ADDR; usually URL
	MetricsPath string    // path of the metrics page
	Key         string    // API key for one inference; empty: none is made
	Model       string    // model for the inference; empty: the server's default
	Out         io.Writer // one line for each check
}

// probe requests the endpoints of a running server and reports each check as a line.
type probe struct {
	Options
	client     *http.Client
	metricsOff bool // PROMETHEUS_ENABLED=false
	failures   int
	ctx        context.Context // of the whole run
}

const routerPath = "/metrics/router"

// maxReplyBytes bounds how much is read of one reply.
const maxReplyBytes = 64 << 20

// Run tests every monitoring endpoint of a running server. It fails when a check does.
func Run(ctx context.Context, o Options) error {
	p := &probe{Options: o, ctx: ctx, client: &http.Client{Timeout: 5 * time.Minute}}
	defer p.client.CloseIdleConnections()
	fmt.Fprintf(p.Out, "testing %s\n", p.URL)
	if _, err := p.get("/livez"); err != nil {
		return fmt.Errorf("no server answers (start one with make run or make mock): %w", err)
	}
	p.check("/livez says ok", p.livez)
	p.check("/health has the documented shape", p.health)
	p.check("/status has the documented shape", p.status)
	p.check("/models has the documented shape", p.models)
	p.check("/readyz says yes, or why not", p.readyz)
	p.check("errors are JSON with type, message and request id", p.errors)
	p.checkMetrics()
	if p.failures > 0 {
		return fmt.Errorf("%d checks failed", p.failures)
	}
	_, err := fmt.Fprintln(p.Out, "all checks passed")
	return err
}

func (p *probe) check(what string, f func() error) {
	if err := f(); err != nil {
		p.failures++
		fmt.Fprintf(p.Out, "FAIL  %s: %v\n", what, err)
		return
	}
	fmt.Fprintf(p.Out, "ok    %s\n", what)
}

// reply is an HTTP reply with its whole body.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (p *probe) get(path string) (reply, error) { return p.send("GET", path, "") }

func (p *probe) send(method, path, body string, headers ...string) (reply, error) {
	base := p.URL
	if path == p.MetricsPath || path == routerPath {
		base = p.MetricsURL
	}
	request, err := http.NewRequestWithContext(p.ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("make request: %w", err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := p.client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReplyBytes))
	if err != nil {
		return reply{}, fmt.Errorf("read %s: %w", path, err)
	}
	got := reply{response.StatusCode, response.Header, text}
	if got.header.Get("X-Request-Id") == "" {
		return got, fmt.Errorf("%s has no X-Request-Id", path)
	}
	return got, nil
}

// decode reads the JSON of a page, whose status must be 200, into v.
func (p *probe) decode(path string, v any) error {
	got, err := p.get(path)
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
func (p *probe) scrape() (scrapedMetrics, error) {
	got, err := p.get(p.MetricsPath)
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
