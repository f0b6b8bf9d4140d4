package manifest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPod runs the whole life of a pod in the order in which a kubelet arranges it, in both forms: start, probes, a
// request, deletion, and a stream that begins during the deletion.
func TestPod(t *testing.T) {
	t.Parallel()
	for _, overlay := range []string{"cpu", "two-containers"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			newPod(t, overlay).runLifecycle()
		})
	}
}

func (p *localPod) runLifecycle() {
	t, w := p.t, p.w
	if output, err := p.containerCommand(t.Context(), w.proxy, "check-config").CombinedOutput(); err != nil || !strings.Contains(string(output), "1 API keys") {
		t.Fatalf("check-config: %v: %s", err, output)
	}
	proxy := p.start(w.proxy)
	p.waitProbe(w.proxy, w.proxy.StartupProbe) // a sidecar's startup probe must pass without an engine
	if status, body := p.request("GET", w.proxy.ReadinessProbe.HTTPGet.Path, "", ""); status != 503 {
		t.Errorf("ready without an engine: %d %s", status, body)
	}
	engine := p.start(w.engine)
	p.waitProbe(w.engine, w.engine.StartupProbe)
	p.waitProbe(w.engine, w.engine.LivenessProbe)
	p.waitProbe(w.proxy, w.proxy.LivenessProbe)
	p.waitProbe(w.proxy, w.proxy.ReadinessProbe)
	question := `{"prompt":"hello","max_new_tokens":4}`
	if status, body := p.request("POST", "/infer", "", question); status != 401 {
		t.Errorf("without a key: %d %s", status, body)
	}
	if status, body := p.request("POST", "/infer", p.key, question); status != 200 {
		t.Errorf("with the key: %d %s", status, body)
	}
	if status, body := p.request("GET", w.value(w.proxy, "METRICS_PATH"), "", ""); status != 200 || !strings.Contains(body, "llm_engine_up 1") {
		t.Errorf("metrics: %d, %d bytes", status, len(body))
	}
	p.deletePod(proxy, engine, question)
}

// deletePod does what a kubelet does: hooks first, then SIGTERM; to a sidecar only when the engine has ended.
func (p *localPod) deletePod(proxy, engine *process, question string) {
	t, w := p.t, p.w
	if output, err := p.containerCommand(t.Context(), w.proxy, w.proxy.Lifecycle.PreStop.Exec.Command...).CombinedOutput(); err != nil {
		t.Errorf("preStop: %v: %s", err, output)
	}
	began := time.Now()
	sendSIGTERM(t, engine)
	if !w.sidecar {
		sendSIGTERM(t, proxy)
	}
	if status, body := p.request("GET", w.proxy.ReadinessProbe.HTTPGet.Path, "", ""); status != 503 {
		t.Errorf("ready while it drains: %d %s", status, body)
	}
	if status, body := p.request("POST", "/infer", p.key, question); status != 200 {
		t.Errorf("within DRAIN_DELAY: %d %s", status, body)
	}
	// 8 s, longer than the delay
	long := fmt.Sprintf(`{"prompt":%q,"max_new_tokens":250,"stream":true}`, strings.Repeat("word ", 160))
	stream := make(chan string, 1)
	go func() {
		_, body := p.request("POST", "/infer", p.key, long)
		stream <- body
	}()
	p.eventually("the stream runs", func() error {
		status, body := p.request("GET", w.value(w.proxy, "METRICS_PATH"), "", "")
		if !strings.Contains(body, "llm_requests_running 1") {
			return fmt.Errorf("metrics: %d, %d bytes", status, len(body))
		}
		return nil
	})
	p.eventually("new requests are refused", func() error {
		status, body := p.request("POST", "/infer", p.key, question)
		if status == 503 || status == 0 { // 0 when nothing listens any more
			return nil
		}
		return fmt.Errorf("%d %s", status, body)
	})
	if took := time.Since(began); took < w.duration(w.proxy, "DRAIN_DELAY")-time.Second {
		t.Errorf("requests are refused after %v", took)
	}
	engine.waitCleanEnd(t)
	if w.sidecar {
		sendSIGTERM(t, proxy)
	}
	proxy.waitCleanEnd(t)
	select {
	case body := <-stream:
		if !strings.Contains(body, `"finish_reason"`) || strings.Contains(body, "event: error") {
			t.Errorf("the stream was cut: …%s", body[max(0, len(body)-300):])
		}
	case <-time.After(waitTimeout):
		t.Error("the stream never ends")
	}
	if took := time.Since(began); took > time.Duration(*w.pod.TerminationGracePeriodSeconds)*time.Second {
		t.Errorf("the pod took %v to end", took)
	}
}
