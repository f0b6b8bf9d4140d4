package supervise

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// fakeEngineEnv makes this test binary act as an engine; its value is a space-separated list of what each start of it
// does.
const (
	fakeEngineEnv = "SUPERVISE_TEST_CHILD"
	startLogEnv   = "SUPERVISE_TEST_START_LOG"
)

func TestMain(m *testing.M) {
	if starts := os.Getenv(fakeEngineEnv); starts != "" {
		os.Exit(runFakeEngine(strings.Fields(starts)))
	}
	if os.Getenv(fakeSupervisorEnv) != "" {
		os.Exit(runFakeSupervisor())
	}
	goleak.VerifyTestMain(m)
}

// runFakeEngine notes its start in the start log and does what the list says for this start.
func runFakeEngine(starts []string) int {
	startLog := os.Getenv(startLogEnv)
	last, err := TakeLastExit()
	if err != nil {
		return 99
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	f, err := os.OpenFile(startLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 98
	}
	text, _ := os.ReadFile(startLog)
	start := strings.Count(string(text), "\n")
	found := int64(0)
	for _, m := range last.Memory {
		found += m.Bytes
	}
	fmt.Fprintf(f, "%d %s %d %s %d %v %d\n", os.Getpid(), last.Kind, last.Crashes, os.Getenv("GGML_NO_BACKTRACE"), len(last.Loads), last.Uptime > 0, found)
	f.Close()
	switch do := starts[min(start, len(starts)-1)]; do {
	case "abort":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "progress":
		writeTestHeartbeat(Heartbeat{Sequence: 1, Progress: 5})
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "brief":
		writeTestHeartbeat(Heartbeat{Sequence: 1})
		time.Sleep(300 * time.Millisecond) // simulates an engine that works for a while
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "found": // memory, and be killed
		writeTestHeartbeat(Heartbeat{Sequence: 1, Memory: testMemory})
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "load": // and be killed in it
		writeTestHeartbeat(Heartbeat{Sequence: 1, Loads: []Loading{{Model: "m", Version: "v"}}, Memory: testMemory})
		time.Sleep(time.Hour)
	case "loading":
		writeTestHeartbeat(Heartbeat{Sequence: 1, Loads: []Loading{{Model: "m", Version: "v"}}})
		return 3
	case "overwrite": // the file that is there, since the disk has no room for another
		if !overwriteTestHeartbeat() {
			return 5
		}
		return UsageCode
	case "usage":
		return UsageCode
	case "panic":
		panic("a fault in a library ends like this, too")
	case "hang":
		writeTestHeartbeat(Heartbeat{Sequence: 1, Activities: []Activity{{Name: "cpu", Age: time.Hour, Budget: time.Second}}})
		time.Sleep(time.Hour) // simulates a hung step
	case "stubborn":
		writeTestHeartbeat(Heartbeat{Sequence: 1})
		time.Sleep(time.Hour) // simulates an engine that ignores SIGTERM
	case "asked": // to end, by somebody else than its supervisor
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-signals
		if !Replaced() {
			return 5
		}
	case "serve":
		writeTestHeartbeat(Heartbeat{Sequence: 1, Memory: testMemory})
		<-signals
		if Replaced() {
			return 5 // without the mark that the supervisor ends
		}
		return 0
	}
	return 0
}

func writeTestHeartbeat(h Heartbeat) {
	path, err := HeartbeatFile("unused")
	if err != nil {
		panic(err)
	}
	if err := WriteHeartbeat(path, h); err != nil {
		panic(err)
	}
}

// testMemory is what a fake engine finds.
var testMemory = []FoundMemory{{"GPU0", 7, 8}, {"GPU1", 4, 8}}

// overwriteTestHeartbeat reports whether there is a file for a heartbeat without one in it, and room for one.
func overwriteTestHeartbeat() bool {
	path, err := HeartbeatFile("unused")
	if err != nil {
		return false
	}
	if h, _, err := ReadHeartbeat(path); err != nil || h.Sequence != 0 {
		return false
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// engineStart is what a fake engine wrote to the start log.
type engineStart struct {
	pid      int
	lastExit Kind
	crashes  int
	loads    int  // in progress when the last one died
	uptime   bool // is known of the last one
	memory   int64
}

// runSupervisor runs a supervisor of a fake engine and returns what the engine wrote at each start.
func runSupervisor(t *testing.T, starts string, signals chan os.Signal, change ...func(*Options)) ([]engineStart, error) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	startLog := filepath.Join(dir, "startLog")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Program: program, Env: append(os.Environ(), fakeEngineEnv+"="+starts, startLogEnv+"="+startLog),
		Socket: filepath.Join(dir, "s"), DrainTimeout: time.Second, Signals: signals, memory: &memoryLimit{},
	}
	for _, c := range change {
		c(&o)
	}
	runErr := Run(o)
	text, err := os.ReadFile(startLog)
	if err != nil {
		t.Fatal(err)
	}
	var out []engineStart
	for line := range strings.Lines(string(text)) {
		parts := strings.Split(strings.TrimSpace(line), " ")
		pid, _ := strconv.Atoi(parts[0])
		crashes, _ := strconv.Atoi(parts[2])
		loads, _ := strconv.Atoi(parts[4])
		memory, _ := strconv.ParseInt(parts[6], 10, 64)
		out = append(out, engineStart{pid, Kind(parts[1]), crashes, loads, parts[5] == "true", memory})
		if parts[3] != "1" {
			t.Errorf("GGML_NO_BACKTRACE is %q in the child", parts[3])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tandem-engine-*", "heartbeat-*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	return out, runErr
}

// fakeSupervisorEnv makes this binary act as a supervisor; its value is the socket. The memory of its control group is
// that of a folder, if one is named.
const (
	fakeSupervisorEnv   = "SUPERVISE_TEST_SUPERVISOR"
	supervisedStartsEnv = "SUPERVISE_TEST_STARTS" // what its engines do; otherwise they ignore SIGTERM
	memoryFolderEnv     = "SUPERVISE_TEST_MEMORY"
)

func runFakeSupervisor() int {
	program, err := os.Executable()
	if err != nil {
		return 1
	}
	socket := os.Getenv(fakeSupervisorEnv)
	env := append(os.Environ(), fakeEngineEnv+"=stubborn", fakeSupervisorEnv+"=")
	if starts := os.Getenv(supervisedStartsEnv); starts != "" {
		env = append(env, fakeEngineEnv+"="+starts)
	}
	o := Options{Program: program, Env: env, Socket: socket, memory: &memoryLimit{}}
	if dir := os.Getenv(memoryFolderEnv); dir != "" {
		o.memory = findMemoryLimit(dir, "0::/")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	o.Signals = signals
	if err := Run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
