package models

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// headerOf is a file with these pairs, beside the architecture, and one tensor of this name.
func headerOf(architecture, tensor string, pairs map[string]any) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a Buffer doesn't fail
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put([2]uint64{1, uint64(len(pairs)) + 1})
	for key, value := range pairs {
		text(key)
		switch v := value.(type) {
		case string:
			put(uint32(ggufString))
			text(v)
		case bool:
			put(uint32(ggufBool))
			put(v)
		case uint32:
			put(uint32(ggufUint32))
			put(v)
		}
	}
	text("general.architecture") // last: the other keys must not need it
	put(uint32(ggufString))
	text(architecture)
	text(tensor)
	put(uint32(1))  // dimensions
	put(uint64(16)) // values
	put(uint32(0))  // F32
	put(uint64(0))  // offset
	b.Write(make([]byte, 32+64))
	return b.Bytes()
}

func TestAbilitiesOfAHeader(t *testing.T) {
	const tensor = "token_embd.weight"
	for name, c := range map[string]struct {
		file     []byte
		template TemplateMode
		pooling  Pooling
		want     Abilities
	}{
		"no template": {file: headerOf("llama", tensor, nil), want: Abilities{Embeddings: true}},
		"a template": {file: headerOf("llama", tensor, map[string]any{templateKey: "{{ messages }}"}),
			want: Abilities{ChatTemplate: true, Embeddings: true}},
		"template off": {file: headerOf("llama", tensor, map[string]any{templateKey: "{{ tools }}</think>"}), template: TemplateOff,
			want: Abilities{Embeddings: true}},
		"tools": {file: headerOf("llama", tensor, map[string]any{templateKey: "{{ messages }}", toolTemplateKey: "{% for t in tools %}"}),
			want: Abilities{ChatTemplate: true, Tools: true, Embeddings: true}},
		"reasoning": {file: headerOf("llama", tensor, map[string]any{templateKey: "{{ m.reasoning_content }}"}),
			want: Abilities{ChatTemplate: true, Reasoning: true, Embeddings: true}},
		"a template that is too long to read": {file: headerOf("llama", tensor, map[string]any{templateKey: strings.Repeat("tools ", maxTemplate/6+1)}),
			want: Abilities{ChatTemplate: true, Embeddings: true}},
		"an encoder": {file: headerOf("bert", tensor, nil), want: Abilities{EncoderOnly: true, Embeddings: true}},
		"a decoder that looks ahead": {file: headerOf("qwen2", tensor, map[string]any{"qwen2.attention.causal": false, "llama.attention.causal": true}),
			want: Abilities{EncoderOnly: true, Embeddings: true}},
		"a reranker": {file: headerOf("qwen3", "cls.output.weight", map[string]any{"qwen3.pooling_type": uint32(poolingRank)}),
			want: Abilities{Scores: true}},
		"a reranker that shall embed": {file: headerOf("bert", "cls.weight", map[string]any{"bert.pooling_type": uint32(poolingRank)}), pooling: PoolingMean,
			want: Abilities{EncoderOnly: true, Embeddings: true}},
		"rank without a classifier": {file: headerOf("bert", tensor, map[string]any{"bert.pooling_type": uint32(poolingRank)}),
			want: Abilities{EncoderOnly: true, Embeddings: true}},
	} {
		h, err := readHeader(bytes.NewReader(c.file), int64(len(c.file)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := h.abilities(c.template, c.pooling); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
