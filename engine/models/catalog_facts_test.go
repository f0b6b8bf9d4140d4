package models

import (
	"bytes"
	"testing"
)

// withFileType is a small model whose header says how it is quantized, in place of the alignment, which is the default.
func withFileType(kind uint32) []byte {
	file := gguf("model", 1)
	file = bytes.Replace(file, []byte("general.alignment"), []byte("general.file_type"), 1)
	at := bytes.Index(file, []byte("general.file_type")) + len("general.file_type") + 4
	file[at] = byte(kind)
	return file
}

func TestWhatIsKnownBeforeALoad(t *testing.T) {
	dir := t.TempDir()
	whole, split := withFileType(15), withFileType(7)
	place(t, dir, "one/model.gguf", whole)
	place(t, dir, "two/model-00001-of-00002.gguf", split)
	place(t, dir, "two/model-00002-of-00002.gguf", gguf("model", 2))
	place(t, dir, "two/model.yaml", []byte("pooling: last\n"))
	place(t, dir, "three/model.gguf.xz", packed(t, whole))
	place(t, dir, "four/model.gguf", gguf("model", 3))
	r, err := NewRegistry(RegistryOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Model{
		"one":   {Bytes: int64(len(whole)), Architecture: "llama", Quantization: "Q4_K - Medium"},
		"two":   {Bytes: int64(len(split) + len(gguf("model", 2))), Architecture: "llama", Quantization: "Q8_0", Pooling: PoolingLast},
		"three": {Bytes: int64(len(whole))}, // its header is packed, too
		"four":  {Bytes: int64(len(whole)), Architecture: "llama"},
	} {
		m, ok := r.Find(name)
		if !ok || m.Bytes != want.Bytes || m.Architecture != want.Architecture || m.Quantization != want.Quantization || m.Pooling != want.Pooling {
			t.Errorf("%s: %+v, want %+v", name, m, want)
		}
	}
}

// TestPoolingIsAnotherBase: a base that pools otherwise gives other vectors, so it must be loaded anew.
func TestPoolingIsAnotherBase(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "m/model.gguf", gguf("model", 1))
	ids := map[string]bool{}
	for _, yaml := range []string{"pooling: mean\n", "pooling: cls\n", "domain: abc\n"} {
		place(t, dir, "m/model.yaml", []byte(yaml))
		r, err := NewRegistry(RegistryOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		src := r.source("m", BaseVersion)
		ids[src.baseID], ids[src.identity] = true, true
	}
	if len(ids) != 6 {
		t.Errorf("three poolings have the identities %v", ids)
	}
}

// The context before a load is what a file and the settings allow, and not known where positions are scaled.
func TestContextBeforeALoad(t *testing.T) {
	plain, yarn := RopeScaling{}, RopeScaling{Type: RopeYarn, Factor: 4}
	for _, c := range []struct {
		trained, setting int
		model, all       RopeScaling
		want             int
	}{
		{2048, 8192, plain, plain, 2048},
		{32768, 8192, plain, RopeScaling{Type: RopeAuto}, 8192},
		{0, 8192, plain, plain, 0}, // the file is packed
		{2048, 8192, yarn, plain, 0},
		{2048, 8192, plain, yarn, 0},
	} {
		cache := &Cache{opts: CacheOptions{Context: c.setting, Attention: Attention{Rope: c.all}}}
		if got := cache.ContextBeforeLoad(&Model{TrainContext: c.trained, Attention: Attention{Rope: c.model}}); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
