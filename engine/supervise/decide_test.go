package supervise

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPolicy(t *testing.T) {
	type end struct {
		at       time.Duration
		kind     Kind
		progress bool
		want     verdict
	}
	s, ms := time.Second, time.Millisecond
	for name, ends := range map[string][]end{
		"backs off and gives up": {
			{0, Signal, false, verdict{crashes: 1}},
			{1 * s, Signal, false, verdict{crashes: 2, wait: 100 * ms}},
			{2 * s, Exit, false, verdict{crashes: 3, wait: 200 * ms}},
			{3 * s, OOM, false, verdict{crashes: 4, wait: 400 * ms}},
			{4 * s, Stall, false, verdict{crashes: 5, wait: 800 * ms, giveUp: true}},
		},
		"progress starts over": {
			{0, Signal, false, verdict{crashes: 1}},
			{1 * s, Signal, false, verdict{crashes: 2, wait: 100 * ms}},
			{2 * s, Signal, true, verdict{crashes: 1}},
			{3 * s, Signal, false, verdict{crashes: 2, wait: 100 * ms}},
		},
		"kills with progress never end it": {
			{0, Signal, true, verdict{crashes: 1}},
			{1 * s, Signal, true, verdict{crashes: 1}},
			{2 * s, Signal, true, verdict{crashes: 1}},
			{3 * s, Signal, true, verdict{crashes: 1}},
			{4 * s, Signal, true, verdict{crashes: 1}},
			{5 * s, Signal, true, verdict{crashes: 1}},
		},
		"an upgrade is no crash": {
			{0, Signal, false, verdict{crashes: 1}},
			{1 * s, Upgrade, false, verdict{}},
			{2 * s, Signal, false, verdict{crashes: 1}},
		},
		"old crashes count no more, the wait stays bounded": {
			{0, Signal, false, verdict{crashes: 1}},
			{61 * s, Signal, false, verdict{crashes: 1, wait: 100 * ms}},
			{122 * s, Signal, false, verdict{crashes: 1, wait: 200 * ms}},
			{183 * s, Signal, false, verdict{crashes: 1, wait: 400 * ms}},
			{244 * s, Signal, false, verdict{crashes: 1, wait: 800 * ms}},
			{305 * s, Signal, false, verdict{crashes: 1, wait: 1600 * ms}},
			{366 * s, Signal, false, verdict{crashes: 1, wait: 2 * s}},
			{427 * s, Signal, false, verdict{crashes: 1, wait: 2 * s}},
		},
	} {
		var p policy
		for i, e := range ends {
			if got := p.ended(e.kind, e.progress, e.at); got != e.want {
				t.Errorf("%s, end %d: %+v, want %+v", name, i, got, e.want)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	const stall = 30 * time.Second
	heartbeat := func(age, budget time.Duration) Heartbeat {
		return Heartbeat{Sequence: 1, Activities: []Activity{{Name: "cpu", Phase: "step", Age: age, Budget: budget}}}
	}
	for name, test := range map[string]struct {
		seen *Heartbeat
		now  time.Duration
		hung bool
	}{
		"starting":                      {nil, 59 * time.Second, false},
		"never began":                   {nil, 61 * time.Second, true},
		"fresh":                         {&Heartbeat{Sequence: 1}, 0, false},
		"late":                          {&Heartbeat{Sequence: 1}, 29 * time.Second, false},
		"silent":                        {&Heartbeat{Sequence: 1}, 31 * time.Second, true},
		"long step within its budget":   {new(heartbeat(100*time.Second, 200*time.Second)), time.Second, false},
		"step over its budget":          {new(heartbeat(29500*time.Millisecond, stall)), time.Second, true},
		"without a budget":              {new(heartbeat(time.Hour, 0)), time.Second, false},
		"over it only with the silence": {new(heartbeat(29*time.Second, stall)), 2 * time.Second, true},
	} {
		w := watch{stall: stall}
		if test.seen != nil {
			w.observe(*test.seen, 0)
			w.observe(*test.seen, test.now) // the same again is no sign of life
		}
		if why := w.overdue(test.now); (why != "") != test.hung {
			t.Errorf("%s: %q", name, why)
		}
	}
}

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
		if got := classify(c.ProcessState, test.killed, test.oom); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestEventFiles(t *testing.T) {
	for name, test := range map[string]struct {
		groups string
		want   []string
	}{
		"version 2": {"0::/pod/engine\n", []string{"/sys/fs/cgroup/pod/engine/memory.events", "/sys/fs/cgroup/memory.events"}},
		"version 1": {"5:cpu:/x\n4:memory:/y\n", []string{"/sys/fs/cgroup/memory/y/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"}},
		"none":      {"garbage\n\n", nil},
	} {
		if got := eventFiles(test.groups); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for text, want := range map[string]uint64{
		"low 0\noom 3\noom_kill 2\noom_group_kill 0\n": 2, "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n": 5, "": 0, "oom_kill x\n": 0,
	} {
		if got := oomCount([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestLastExitTravelsThroughTheEnvironment(t *testing.T) {
	s := supervisor{heartbeat: "/x", o: Options{Env: []string{"PATH=/bin", "GGML_NO_BACKTRACE=0", lastExitVariable + "=old"}}}
	s.last = LastExit{Kind: Signal, Signal: 11, Uptime: time.Minute, Crashes: 2, Loads: []Loading{{Model: "m", Version: "v", Revision: []byte{1, 2}}}}
	for _, entry := range s.environment() {
		name, value, _ := strings.Cut(entry, "=")
		if name == "GGML_NO_BACKTRACE" && value != "0" {
			t.Errorf("what the operator set is changed: %s", entry)
		}
		if name == lastExitVariable {
			t.Setenv(name, value)
		}
	}
	got, err := TakeLastExit()
	if err != nil || got.Kind != Signal || got.Signal != 11 || got.Crashes != 2 || len(got.Loads) != 1 || got.Loads[0].Model != "m" {
		t.Errorf("%+v (%v)", got, err)
	}
	if _, there := os.LookupEnv(lastExitVariable); there {
		t.Error("it stays in the environment")
	}
	if again, err := TakeLastExit(); err != nil || again.Kind != None {
		t.Errorf("the second time: %+v (%v)", again, err)
	}
	t.Setenv(lastExitVariable, "{")
	if _, err := TakeLastExit(); err == nil {
		t.Error("garbage is accepted")
	}
}
