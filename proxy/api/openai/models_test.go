package openai

import (
	"testing"
	"time"

	"tandem/proxy/api"
)

var installed = []api.Model{
	{Name: "org/demo", Versions: []string{"base", "v1.0", "v2.0"}, DefaultVersion: "v1.0", Context: 8192, Problems: []api.Problem{{Version: "v2.0", Text: "no tensors"}},
		States: map[string]api.LoadState{"v1.0": api.StateLoaded, "base": api.StateLoading}},
	{Name: "plain", Versions: []string{"base"}},
	{Name: "broken", Versions: []string{"base", "v1"}, Problems: []api.Problem{{Version: "base", Text: "cut off"}}},
	{Name: "broken-default", Versions: []string{"base", "v1"}, DefaultVersion: "v1", Problems: []api.Problem{{Version: "v1", Text: "cut off"}}},
}

func TestModels(t *testing.T) {
	at := time.Unix(1703123456, 5e8)
	same(t, AppendModels(nil, nil, at), `{"object":"list","data":[]}`)
	same(t, AppendModels(nil, installed, at), `{"object":"list","data":[`+
		`{"id":"org/demo","object":"model","created":1703123456,"owned_by":"tandem","context_length":8192,"state":"loaded"},`+
		`{"id":"org/demo:base","object":"model","created":1703123456,"owned_by":"tandem","context_length":8192,"state":"loading"},`+
		`{"id":"org/demo:v1.0","object":"model","created":1703123456,"owned_by":"tandem","context_length":8192,"state":"loaded"},`+
		`{"id":"plain","object":"model","created":1703123456,"owned_by":"tandem","state":"not_loaded"},`+
		`{"id":"broken-default:base","object":"model","created":1703123456,"owned_by":"tandem","state":"not_loaded"}]}`)
}

func TestModel(t *testing.T) {
	at := time.Unix(1703123456, 0)
	for id, state := range map[string]string{"org/demo": "loaded", "org/demo:base": "loading", "org/demo:v1.0": "loaded"} {
		got, err := AppendModel([]byte("x"), installed, id, at)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got[1:], `{"id":"`+id+`","object":"model","created":1703123456,"owned_by":"tandem","context_length":8192,"state":"`+state+`"}`)
	}
	for _, id := range []string{"", "demo", "org/demo:v2.0", "org/demo:v3", "broken", "broken:v1", "broken-default", "org/demo:v1.0:x", "\xff"} {
		got, err := AppendModel([]byte("x"), installed, id, at)
		if err == nil || err.Status() != 404 || err.Param != "model" || string(got) != "x" {
			t.Errorf("%q: %s, %v", id, got, err)
		}
	}
}

func TestWhatIsKnownOfAModel(t *testing.T) {
	m := []api.Model{{Name: "m", Versions: []string{"base"}, Bytes: 93 << 20, Quantization: "Q4_1", Architecture: "llama", Capabilities: []string{"chat", "tools"}}}
	got, err := AppendModel(nil, m, "m", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, `{"id":"m","object":"model","created":1,"owned_by":"tandem","size_bytes":97517568,"quantization":"Q4_1","architecture":"llama",`+
		`"capabilities":["chat","tools"],"state":"not_loaded"}`)
}

// What the list names can be asked for, and is what a reply then names.
func TestListedModelsCanBeAskedFor(t *testing.T) {
	for _, l := range api.ListModels(installed) {
		r, err := Chat.Decode([]byte(`{"messages":[{"role":"user","content":"Hi"}],"model":"`+l.ID+`"}`), api.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := api.Resolve(installed, "", "", r.Model, r.Version); err != nil {
			t.Errorf("%s: %v", l.ID, err)
		}
	}
}
