package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tandem/scripts/await"
)

// pickerNames are the metrics that an endpoint picker of the Gateway API Inference Extension reads, as its model server
// protocol describes them.
type pickerNames struct {
	queued, running, kvUsage, adapters, cache string
	blockSize, blocks                         string // labels of cache
}

var (
	// pickerDefaults are what pickers read when nobody tells them other names.
	pickerDefaults = pickerNames{"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc",
		"vllm:lora_requests_info", "vllm:cache_config_info", "block_size", "num_gpu_blocks"}
	// pickerConfigured are those of deploy/kubernetes/components/inference-extension.
	pickerConfigured = pickerNames{"llm_requests_waiting", "llm_requests_running", "llm_kv_cache_usage_ratio",
		"llm_lora_requests_info", "llm_cache_config_info", "block_size", "num_blocks"}
)

// pickerView is what a picker learns of a server.
type pickerView struct {
	Queued, Running, MaxAdapters, BlockSize, Blocks int
	KVUsage                                         float64
	Loaded, Waiting                                 []string // names of adapters
	AdaptersChanged                                 float64  // seconds since 1970
}

// pickerPath is where pickers are told to look.
const pickerPath = "/metrics/router"

// askAsPicker reads the page as a picker would, by both lists of names, which must say the same. A page that the
// protocol doesn't allow is an error.
func (s *testServer) askAsPicker() (pickerView, error) {
	resp, err := s.client.Get(s.url + pickerPath)
	if err != nil {
		return pickerView{}, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return pickerView{}, fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	view, err := pickerDefaults.read(families)
	if err != nil {
		return view, err
	}
	other, err := pickerConfigured.read(families)
	if err == nil && !reflect.DeepEqual(view, other) {
		err = fmt.Errorf("by other names %+v, want %+v", other, view)
	}
	return view, err
}

func (n *pickerNames) read(families metrics) (v pickerView, err error) {
	var problems []string
	gauge := func(name string) *dto.Metric {
		f := families[name]
		if f == nil || f.GetType() != dto.MetricType_GAUGE || len(f.Metric) != 1 {
			problems = append(problems, fmt.Sprintf("%s isn't one gauge: %v", name, f))
			return &dto.Metric{}
		}
		return f.Metric[0]
	}
	count := func(m *dto.Metric, label string) int {
		text := labelsOf(m)[label]
		number, err := strconv.Atoi(text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("label %s=%q isn't a number", label, text))
		}
		return number
	}
	v.Queued, v.Running = int(gauge(n.queued).GetGauge().GetValue()), int(gauge(n.running).GetGauge().GetValue())
	v.KVUsage = gauge(n.kvUsage).GetGauge().GetValue()
	cache, adapters := gauge(n.cache), gauge(n.adapters)
	v.BlockSize, v.Blocks = count(cache, n.blockSize), count(cache, n.blocks)
	v.AdaptersChanged, v.MaxAdapters = adapters.GetGauge().GetValue(), count(adapters, "max_lora")
	v.Loaded, v.Waiting = splitAdapters(adapters, "running_lora_adapters"), splitAdapters(adapters, "waiting_lora_adapters")
	if len(problems) > 0 {
		return v, fmt.Errorf("the protocol is broken: %s", strings.Join(problems, "; "))
	}
	return v, nil
}

func labelsOf(m *dto.Metric) map[string]string {
	all := map[string]string{}
	for _, l := range m.Label {
		all[l.GetName()] = l.GetValue()
	}
	return all
}

// splitAdapters reads a list of names with commas between them, in order.
func splitAdapters(m *dto.Metric, label string) []string {
	names := map[string]bool{}
	for name := range strings.SplitSeq(labelsOf(m)[label], ",") {
		if name = strings.TrimSpace(name); name != "" {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// waitForView polls as a picker does until it sees what is wanted.
func (s *testServer) waitForView(what string, want func(pickerView) bool) pickerView {
	s.t.Helper()
	var view pickerView
	var err error
	if !await.Every(50*time.Millisecond, failureLimit, func() bool {
		view, err = s.askAsPicker()
		return err == nil && want(view)
	}) {
		s.t.Fatalf("a picker doesn't see %s: %+v, %v", what, view, err)
	}
	return view
}

// TestEndpointPickerMetrics holds the page for endpoint pickers against the model server protocol of the Gateway API
// Inference Extension (proposal 003), in the states in which a picker may meet a server.
func TestEndpointPickerMetrics(t *testing.T) {
	// answers last until they are given up
	s := newServer(t, "PARALLEL=1", "CACHE_SIZE=1", "MOCK_TOKEN_DELAY=500ms", "STEP_DELAY=500ms")
	s.startProxy()
	s.waitProxyAnswers()
	if v, err := s.askAsPicker(); err != nil || v.Queued+v.Running != 0 || v.KVUsage != 0 || len(v.Loaded) != 0 {
		t.Errorf("before there is an engine: %+v, %v", v, err)
	}
	s.startEngine()
	s.waitReady(failureLimit)
	idle := s.waitForView("the default version", func(v pickerView) bool { return slices.Equal(v.Loaded, []string{"demo:v1.0"}) })
	if idle.MaxAdapters != 1 || len(idle.Waiting) != 0 || idle.BlockSize < 1 || idle.Blocks < 1 || idle.Queued+idle.Running != 0 {
		t.Errorf("at rest: %+v", idle)
	}
	if age := time.Since(time.UnixMilli(int64(1000 * idle.AdaptersChanged))); age < 0 || age > time.Minute {
		t.Errorf("the adapters changed %v ago", age)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	ask := func(version string, requests int) { // one comes after the other, or the other version may be loaded first
		go func() {
			_, _ = s.infer(ctx, question(strings.Repeat("abcd ", 60), version)) // given up below
			ended <- struct{}{}
		}()
		s.waitForView(fmt.Sprintf("%d requests", requests), func(v pickerView) bool { return v.Running+v.Queued == requests })
	}
	ask("v1.0", 1)
	ask("v1.0", 2)
	ask("v1.1", 3)
	busy := s.waitForView("one request running, one waiting for it and one for another version", func(v pickerView) bool {
		return v.Running == 1 && v.Queued == 2 && slices.Equal(v.Loaded, []string{"demo:v1.0"}) && slices.Equal(v.Waiting, []string{"demo:v1.1"})
	})
	if busy.KVUsage <= 0 || busy.KVUsage > 1 {
		t.Errorf("at work: %+v, want a share of the KV cache", busy)
	}
	if busy.AdaptersChanged <= idle.AdaptersChanged {
		t.Errorf("the adapters changed at %v, and before at %v", busy.AdaptersChanged, idle.AdaptersChanged)
	}
	stop()
	for range 3 {
		<-ended
	}
	s.waitForView("a server at rest", func(v pickerView) bool { return v.Running+v.Queued == 0 && len(v.Waiting) == 0 })

	if err := s.engine.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.waitForView("a server without an engine", func(v pickerView) bool { return len(v.Loaded) == 0 && v.Blocks == 0 })
}

// TestEndpointPickerRoutes asks as a gateway does for which a picker chose this server: by the model's name alone, at
// the two routes of the protocol. Each adapter that the page names must be one that a request can name.
func TestEndpointPickerRoutes(t *testing.T) {
	s := startServer(t)
	adapters := s.waitForView("an adapter", func(v pickerView) bool { return len(v.Loaded) > 0 }).Loaded
	status, text, err := s.get("/v1/models")
	var list struct{ Data []struct{ ID string } }
	if err = cmp.Or(err, json.Unmarshal([]byte(text), &list)); err != nil || status != http.StatusOK {
		t.Fatalf("/v1/models: %d, %v: %s", status, err, text)
	}
	for _, name := range adapters {
		if !slices.ContainsFunc(list.Data, func(m struct{ ID string }) bool { return m.ID == name }) {
			t.Errorf("%s is loaded by the page and not in /v1/models: %s", name, text)
		}
		for path, body := range map[string]string{
			"/v1/completions":      `{"model":%q,"prompt":"hello","max_tokens":4,"stream":true,"stream_options":{"include_usage":true}}`,
			"/v1/chat/completions": `{"model":%q,"messages":[{"role":"user","content":"hello"}],"max_tokens":4,"stream":true,"stream_options":{"include_usage":true}}`,
		} {
			s.checkChunks(path, fmt.Sprintf(body, name))
		}
	}
}

// checkChunks streams an answer and looks at each chunk by itself, as pickers do who look for the usage: its lines must
// be whole, and one of them must have the usage.
func (s *testServer) checkChunks(path, body string) {
	s.t.Helper()
	chunks, err := s.rawChunks(path, body)
	if err != nil {
		s.t.Errorf("%s: %v", path, err)
		return
	}
	usages := 0
	for _, chunk := range chunks {
		for line := range strings.SplitSeq(chunk, "\n") {
			data, ok := strings.CutPrefix(line, "data: ")
			if line == "" || data == "[DONE]" || strings.HasPrefix(line, ":") {
				continue
			}
			var event struct {
				Usage *struct {
					Prompt     int `json:"prompt_tokens"`
					Completion int `json:"completion_tokens"`
				}
			}
			if err := json.Unmarshal([]byte(data), &event); !ok || err != nil {
				s.t.Errorf("%s: a chunk has a line %q: %v", path, line, err)
			}
			if event.Usage != nil && event.Usage.Prompt > 0 && event.Usage.Completion > 0 {
				usages++
			}
		}
	}
	if usages != 1 || !strings.Contains(chunks[len(chunks)-1], "data: [DONE]") {
		s.t.Errorf("%s: %d usages in %q", path, usages, chunks)
	}
}

// rawChunks returns the chunks of a reply as the server sent them; an HTTP client joins them.
func (s *testServer) rawChunks(path, body string) (chunks []string, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(failureLimit)); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", s.key)
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	from := bufio.NewReader(conn)
	head, err := readHead(from)
	if err != nil || !strings.Contains(head, " 200 ") || !strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
		return nil, fmt.Errorf("reply %q, %w", head, err)
	}
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseUint(strings.TrimSpace(line), 16, 31)
		if err != nil || size == 0 {
			return chunks, err
		}
		chunk := make([]byte, size+2) // and the end of its line
		if _, err := io.ReadFull(from, chunk); err != nil {
			return nil, err
		}
		chunks = append(chunks, string(chunk[:size]))
	}
}

// readHead reads up to the empty line after the headers.
func readHead(from *bufio.Reader) (head string, err error) {
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := from.ReadString('\n')
		if err != nil {
			return head, err
		}
		head += line
	}
	return head, nil
}
