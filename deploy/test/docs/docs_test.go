package docs

import "testing"

func TestSettings(t *testing.T) {
	all, err := Settings()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Setting{
		{"DRAIN_TIMEOUT", "server.drain_timeout", "120s", true, true},
		{"MODELS_DIR", "models.dir", "/models", false, true},
		{"API_KEYS_FILE", "security.api_keys_file", "", true, false},
		{"API_KEYS", "", "", true, false},
	} {
		if got := all[want.Env]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	all, err := Metrics()
	if err != nil {
		t.Fatal(err)
	}
	if l := all["llm_cache_config_info"]; len(l) != 2 || l[0] != "block_size" {
		t.Errorf("labels of llm_cache_config_info: %q", l)
	}
	router, err := RouterMetrics()
	if err != nil {
		t.Fatal(err)
	}
	if len(router) != 5 || !router["llm_requests_waiting"] {
		t.Errorf("router metrics: %v", router)
	}
}
