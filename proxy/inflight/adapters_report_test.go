package inflight

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wantAdapters waits for a tick and checks what the page for endpoint pickers says of versions.
func (table *tableTest) wantAdapters(when, want string) {
	table.t.Helper()
	time.Sleep(2 * tickInterval) // fake time
	synctest.Wait()
	var page bytes.Buffer
	table.metrics.WriteRouterPage(&page)
	if !strings.Contains(page.String(), "llm_lora_requests_info{"+want+"}") {
		table.t.Errorf("%s: want %s in\n%s", when, want, page.String())
	}
}

func TestAdaptersThatAreLoadedAndWaitedFor(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.wantAdapters("without an engine", `max_lora="0",running_lora_adapters="",waiting_lora_adapters=""`)
		f := table.attach(LastExit{})
		table.wantAdapters("nothing is loaded", `max_lora="5",running_lora_adapters="",waiting_lora_adapters=""`)
		table.reportLoad(f, "base", true)
		table.reportLoad(f, "v1.0", true)
		first, second := table.admit(withVersion("v1.0")), table.admit(withPromptAndVersion("other", "v2.0"))
		table.reportLoad(f, "v2.0", false)
		table.sendAccepted(f, f.infers[0])
		table.wantAdapters("one loads", `max_lora="5",running_lora_adapters="demo:v1.0",waiting_lora_adapters="demo:v2.0"`)
		table.wantMetric(1, "llm_requests_waiting") // for the load
		table.reportLoad(f, "v2.0", true)
		table.sendAccepted(f, f.infers[1])
		table.wantAdapters("both are loaded", `max_lora="5",running_lora_adapters="demo:v1.0,demo:v2.0",waiting_lora_adapters=""`)
		table.wantMetric(0, "llm_requests_waiting")
		table.lose(f)
		table.wantAdapters("the engine is gone", `max_lora="5",running_lora_adapters="",waiting_lora_adapters="demo:v1.0,demo:v2.0"`)
		first.Settle(ClientGone)
		second.Settle(ClientGone)
		table.wantAdapters("and so are the clients", `max_lora="5",running_lora_adapters="",waiting_lora_adapters=""`)
	})
}
