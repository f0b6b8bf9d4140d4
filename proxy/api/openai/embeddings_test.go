package openai

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestDecodeEmbeddings(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		`{"input":"a"}`: func(r *api.Request) { r.Inputs = []api.Input{{Text: "a"}} },
		`{"input":["a","b"],"model":"m:v","user":"u"}`: func(r *api.Request) { r.Inputs, r.Model, r.Version = []api.Input{{Text: "a"}, {Text: "b"}}, "m", "v" },
		`{"input":[1,2],"dimensions":8.0}`:             func(r *api.Request) { r.Inputs, r.Dimensions = []api.Input{{Tokens: []int32{1, 2}}}, 8 },
		`{"input":[[1],[2,3]],"encoding_format":"base64"}`: func(r *api.Request) {
			r.Inputs, r.Extra = []api.Input{{Tokens: []int32{1}}, {Tokens: []int32{2, 3}}}, embeddingExtra{base64: true}
		},
		`{"input":"a","encoding_format":null,"dimensions":null}`: func(r *api.Request) { r.Inputs = []api.Input{{Text: "a"}} },
	} {
		want := api.Request{Task: api.TaskEmbed, Raw: true, Extra: embeddingExtra{}}
		change(&want)
		wantRequest(t, Embeddings, body, &want)
	}
	wantRefusals(t, Embeddings, refusals{
		`{}`: "input", `{"input":""}`: "input", `{"input":[]}`: "input", `{"input":["a",""]}`: "input", `{"input":7}`: "input", `{"input":[[]]}`: "input",
		`{"input":"` + long(201) + `"}`: "input", `{"input":"a","encoding_format":"int8"}`: "encoding_format", `{"input":"a","dimensions":0}`: "dimensions",
		`{"input":"a","dimensions":"8"}`: "dimensions", `{"input":"a","model":7}`: "model",
		`{"input":[` + strings.Repeat(`"a",`, api.MaxInputs) + `"a"]}`: "input",
	})
}

func embedded(request string) (api.Encoder, *api.Reply) {
	r, err := Embeddings.Decode([]byte(request), api.Limits{})
	if err != nil {
		panic(err)
	}
	start := startOf("v1.0", false)
	start.Request = r
	meta := api.Metadata{PromptTokens: 3}
	return Embeddings.NewEncoder(start), &api.Reply{Results: []api.Result{{Embedding: []float32{0.6, 0, 0.8}, Metadata: meta}}, Usage: meta}
}

func TestEmbeddingReply(t *testing.T) {
	e, reply := embedded(`{"input":"a"}`)
	same(t, e.AppendReply(nil, reply), `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.6,0,0.8]}],"model":"org/demo:v1.0",`+
		`"usage":{"prompt_tokens":3,"total_tokens":3}}`)
	e, reply = embedded(`{"input":"a","encoding_format":"base64","dimensions":2}`)
	var got struct{ Data []struct{ Embedding string } }
	if err := json.Unmarshal(e.AppendReply(nil, reply), &got); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(got.Data[0].Embedding)
	if err != nil || len(raw) != 8 || math.Float32frombits(binary.LittleEndian.Uint32(raw)) != 1 {
		t.Errorf("%x, %v: the first two numbers with length 1", raw, err)
	}
}

func TestMoreDimensionsThanTheModelHas(t *testing.T) {
	r, _ := Embeddings.Decode([]byte(`{"input":"a","dimensions":4}`), api.Limits{})
	_, reply := embedded(`{"input":"a"}`)
	if err := r.CheckReply(reply); err == nil || err.Param != "dimensions" {
		t.Errorf("%v", err)
	}
}

func TestRerank(t *testing.T) {
	wantRefusals(t, Rerank, refusals{
		`{}`: "query", `{"query":"q"}`: "documents", `{"query":"q","documents":[]}`: "documents", `{"query":"q","documents":"a"}`: "documents",
		`{"query":"q","documents":[7]}`: "documents", `{"query":"q","documents":[{"title":"x"}]}`: "documents", `{"query":"q","documents":["a"],"top_n":0}`: "top_n",
		`{"query":"q","documents":["` + long(200) + `"]}`: "documents", `{"query":7,"documents":["a"]}`: "query",
	})
	r, err := Rerank.Decode([]byte(`{"query":"q","documents":["a",{"text":"b"},"c"],"top_n":2,"return_documents":true}`), api.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Task != api.TaskScore || len(r.Inputs) != 3 || r.ForInput(1).Messages[0].Content != "q" || r.ForInput(1).Messages[1].Content != "b" {
		t.Errorf("%+v", r)
	}
	start := startOf("base", false)
	start.Request = r
	reply := &api.Reply{Results: []api.Result{{Embedding: []float32{-1}}, {Embedding: []float32{2}}, {Embedding: []float32{0}}}, Usage: api.Metadata{PromptTokens: 9}}
	same(t, Rerank.NewEncoder(start).AppendReply(nil, reply), `{"object":"list","model":"org/demo:base","results":[`+
		`{"index":1,"relevance_score":0.8807971,"document":{"text":"b"}},{"index":2,"relevance_score":0.5,"document":{"text":"c"}}],`+
		`"usage":{"prompt_tokens":9,"total_tokens":9}}`)
}
