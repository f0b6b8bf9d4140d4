package supervise

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		killed bool
		oom    uint64
		want   LastExit
	}{
		"asked to go":   {"exit 0", false, 0, LastExit{Kind: Upgrade}},
		"exit code":     {"exit 7", false, 0, LastExit{Kind: Exit, Code: 7}},
		"abort":         {"kill -ABRT $$", false, 0, LastExit{Kind: Signal, Signal: 6}},
		"killed":        {"kill -KILL $$", false, 0, LastExit{Kind: Signal, Signal: 9}},
		"by us":         {"kill -KILL $$", true, 0, LastExit{Kind: Stall, Signal: 9}},
		"for memory":    {"kill -KILL $$", false, 1, LastExit{Kind: OOM, Signal: 9}},
		"abort and oom": {"kill -ABRT $$", false, 1, LastExit{Kind: Signal, Signal: 6}},
	} {
		c := exec.Command("sh", "-c", "ulimit -c 0; "+test.script)
		_ = c.Run() // how it ended is what the test looks at
		if got := exitOf(c.ProcessState, test.killed, test.oom); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestLastExitTravelsThroughTheEnvironment(t *testing.T) {
	s := supervisor{heartbeatPath: "/x", options: Options{Env: []string{"PATH=/bin", "GGML_NO_BACKTRACE=0", lastExitEnv + "=old"}}}
	s.lastExit = LastExit{Kind: Signal, Signal: 11, Uptime: time.Minute, Crashes: 2, Loads: []Loading{{Model: "m", Version: "v", Revision: []byte{1, 2}}}}
	for _, entry := range s.environment() {
		name, value, _ := strings.Cut(entry, "=")
		if name == "GGML_NO_BACKTRACE" && value != "0" {
			t.Errorf("what the operator set is changed: %s", entry)
		}
		if name == lastExitEnv {
			t.Setenv(name, value)
		}
	}
	got, err := TakeLastExit()
	if err != nil || got.Kind != Signal || got.Signal != 11 || got.Crashes != 2 || len(got.Loads) != 1 || got.Loads[0].Model != "m" {
		t.Errorf("%+v (%v)", got, err)
	}
	if _, there := os.LookupEnv(lastExitEnv); there {
		t.Error("it stays in the environment")
	}
	if again, err := TakeLastExit(); err != nil || again.Kind != None {
		t.Errorf("the second time: %+v (%v)", again, err)
	}
	t.Setenv(lastExitEnv, "{")
	if _, err := TakeLastExit(); err == nil {
		t.Error("garbage is accepted")
	}
}
