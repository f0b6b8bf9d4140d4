package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// playPeer is llama-server as far as bench-gpu sees it: it tells how it was started, has its model on the device that
// is named, and answers. The device idle leaves it on the CPU, and none of the name absent is there.
func playPeer(args []string) {
	f := flag.NewFlagSet(peerName, flag.ExitOnError)
	host, port, device := f.String("host", "", ""), f.String("port", "", ""), f.String("dev", "", "")
	verbosity := f.Int("lv", 3, "")
	for _, name := range []string{"m", "ngl", "t", "np", "c"} {
		f.String(name, "", "")
	}
	f.Bool("no-webui", false, "")
	_ = f.Parse(args) // it exits
	fmt.Printf("arguments: %s\nLD_LIBRARY_PATH=%s\n", strings.Join(args, " "), os.Getenv("LD_LIBRARY_PATH"))
	layers := 3
	switch *device {
	case "idle", "none":
		layers = 0
	case "absent":
		fmt.Println("error while handling argument \"-dev\": invalid device: absent")
		os.Exit(1)
	}
	const trace = 4
	if *verbosity >= trace {
		fmt.Printf("load_tensors: offloaded %d/3 layers to GPU\n", layers)
	}
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("POST /v1/completions", answerAsPeer)
	fmt.Println(http.ListenAndServe(*host+":"+*port, nil))
	os.Exit(1)
}

func answerAsPeer(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Tokens int `json:"max_tokens"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for range body.Tokens {
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"text\":\" Paris\"}]}\n\n")
		_ = http.NewResponseController(w).Flush() // the reader may have left
	}
	fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", body.Tokens)
}

// linkPeer puts the test's own program among the programs as llama-server.
func linkPeer(t *testing.T, lib string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(lib, peerName)); err != nil {
		t.Fatal(err)
	}
}

// newPeerBench is a part that compares with a played llama-server; found reads what it told.
func newPeerBench(t *testing.T) (b *bench, found func() Part) {
	t.Helper()
	dir := t.TempDir()
	lib := filepath.Join(dir, "lib")
	if err := os.Mkdir(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	linkPeer(t, lib)
	rows := filepath.Join(dir, "rows")
	file, err := os.Create(rows)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	b = &bench{options: &options{programs: dir, out: dir, streams: []int{1, 2}, tokens: 8}, name: "throughput", file: file}
	return b, func() (p Part) { p.read(rows); return p }
}

// llama-server is compared only where it computes on the devices that Tandem takes.
func TestLlamaServerThatComputesElsewhere(t *testing.T) {
	for devices, want := range map[string]string{
		"TestGPU0,TestGPU1": "",
		"idle":              "it has 0 of 3 layers on a GPU",
		"absent":            "invalid device: absent",
	} {
		b, found := newPeerBench(t)
		err := b.theirSpeed(t.Context(), "tiny", strings.Split(devices, ","))
		if rows := len(found().Rows); want == "" && (err != nil || rows != 5) || want != "" && (err == nil || !strings.Contains(err.Error(), want) || rows != 0) {
			t.Errorf("%s: %d rows, %v, want %q", devices, rows, err, want)
		}
	}
	// On the CPU there is nothing to look for.
	b, found := newPeerBench(t)
	if err := b.theirSpeed(t.Context(), "tiny", nil); err != nil || len(found().Rows) != 5 {
		t.Errorf("the CPU: %+v, %v", found(), err)
	}
	if err := offloaded("llama_model_loader: loaded"); err == nil {
		t.Error("a log that doesn't say where the layers are")
	}
}

// llama-server finds its libraries first, and the driver where the machine's variable says, as Tandem does.
func TestLlamaServersEnvironment(t *testing.T) {
	const machines = "/usr/local/nvidia/lib64:/elsewhere"
	for value, more := range map[string]string{machines: ":" + machines, "": ""} {
		t.Setenv("LD_LIBRARY_PATH", value)
		b, _ := newPeerBench(t)
		p, err := b.startPeer(t.Context(), "tiny", []string{"CUDA1"}, "-np", "2")
		if err != nil {
			t.Fatal(err)
		}
		p.stop()
		log := p.log.String()
		if want := "LD_LIBRARY_PATH=" + filepath.Join(b.programs, "lib") + more + "\n"; !strings.Contains(log, want) || !strings.Contains(log, " -dev CUDA1 ") {
			t.Errorf("%s, want %s and the device", log, want)
		}
	}
}
