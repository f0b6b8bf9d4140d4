package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childVariable makes this test binary play an engine; its value is a space-separated list of what to do in each life.
const (
	childVariable = "SUPERVISE_TEST_CHILD"
	diaryVariable = "SUPERVISE_TEST_DIARY"
)

func TestMain(m *testing.M) {
	if lives := os.Getenv(childVariable); lives != "" {
		os.Exit(child(strings.Fields(lives)))
	}
	if os.Getenv(superviseVariable) != "" {
		os.Exit(superviseUntilKilled())
	}
	goleak.VerifyTestMain(m)
}

// child notes that it lives and does what this life is for.
func child(lives []string) int {
	diary := os.Getenv(diaryVariable)
	last, err := TakeLastExit()
	if err != nil {
		return 99
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	f, err := os.OpenFile(diary, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 98
	}
	text, _ := os.ReadFile(diary)
	life := strings.Count(string(text), "\n")
	fmt.Fprintf(f, "%d %s %d %s\n", os.Getpid(), last.Kind, last.Crashes, os.Getenv("GGML_NO_BACKTRACE"))
	f.Close()
	switch do := lives[min(life, len(lives)-1)]; do {
	case "abort":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "progress":
		heartbeat(Heartbeat{Sequence: 1, Progress: 5})
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "brief":
		heartbeat(Heartbeat{Sequence: 1})
		time.Sleep(300 * time.Millisecond)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "loading":
		heartbeat(Heartbeat{Sequence: 1, Loads: []Loading{{Model: "m", Version: "v"}}})
		return 3
	case "usage":
		return UsageCode
	case "panic":
		panic("a fault in a library ends like this, too")
	case "hang":
		heartbeat(Heartbeat{Sequence: 1, Activities: []Activity{{Name: "cpu", Age: time.Hour, Budget: time.Second}}})
		time.Sleep(time.Hour)
	case "stubborn":
		heartbeat(Heartbeat{Sequence: 1})
		time.Sleep(time.Hour)
	case "asked": // by somebody else than its supervisor
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-signals
		if !Replaced() {
			return 5
		}
	case "serve":
		heartbeat(Heartbeat{Sequence: 1})
		<-signals
		if Replaced() {
			return 5 // the supervisor said nothing of its end
		}
		return 0
	}
	return 0
}

func heartbeat(h Heartbeat) {
	path, err := HeartbeatFile("unused")
	if err != nil {
		panic(err)
	}
	if err := WriteHeartbeat(path, h); err != nil {
		panic(err)
	}
}

// life is what a child wrote about its start.
type life struct {
	pid     int
	last    Kind
	crashes int
}

// play runs a supervisor over a child with these lives and gives what the child wrote at each start.
func play(t *testing.T, lives string, signals chan os.Signal, change ...func(*Options)) ([]life, error) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	diary := filepath.Join(dir, "diary")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Program: program, Env: append(os.Environ(), childVariable+"="+lives, diaryVariable+"="+diary),
		Socket: filepath.Join(dir, "s"), DrainTimeout: time.Second, Signals: signals,
	}
	for _, c := range change {
		c(&o)
	}
	runErr := Run(o)
	text, err := os.ReadFile(diary)
	if err != nil {
		t.Fatal(err)
	}
	var out []life
	for line := range strings.Lines(string(text)) {
		parts := strings.Split(strings.TrimSpace(line), " ")
		pid, _ := strconv.Atoi(parts[0])
		crashes, _ := strconv.Atoi(parts[2])
		out = append(out, life{pid, Kind(parts[1]), crashes})
		if parts[3] != "1" {
			t.Errorf("GGML_NO_BACKTRACE is %q in the child", parts[3])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tandem-engine-*", "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	return out, runErr
}

func TestRestartsUntilTheEngineRefusesItsSettings(t *testing.T) {
	lives, err := play(t, "abort progress loading progress usage", nil)
	if !errors.As(err, &UsageError{}) {
		t.Errorf("ended with %v", err)
	}
	want := []life{{last: None}, {last: Signal, crashes: 1}, {last: Signal, crashes: 1}, {last: Exit, crashes: 2}, {last: Signal, crashes: 1}}
	if len(lives) != len(want) {
		t.Fatalf("%d lives: %+v", len(lives), lives)
	}
	for i := range want {
		if lives[i].last != want[i].last || lives[i].crashes != want[i].crashes {
			t.Errorf("life %d: %+v, want %+v", i, lives[i], want[i])
		}
	}
}

func TestGivesUpACrashLoop(t *testing.T) {
	lives, err := play(t, "abort", nil)
	if !errors.Is(err, ErrCrashLoop) || len(lives) != crashLimit {
		t.Errorf("%d lives, ended with %v", len(lives), err)
	}
}

func TestAPanicIsACrash(t *testing.T) {
	lives, err := play(t, "panic usage", nil)
	if !errors.As(err, &UsageError{}) || len(lives) != 2 || lives[1].last != Exit {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

func TestKillsAHungEngine(t *testing.T) {
	lives, err := play(t, "hang usage", nil)
	if !errors.As(err, &UsageError{}) || len(lives) != 2 || lives[1].last != Stall {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

// signalWhenBeating sends SIGTERM to the supervisor's channel as soon as an engine has written its heartbeat.
func signalWhenBeating(o *Options, signals chan<- os.Signal) {
	go func() {
		for {
			if Check(o.Socket, Live, time.Hour) == nil {
				signals <- syscall.SIGTERM
				return
			}
			time.Sleep(5 * time.Millisecond) // a file has no event without more machinery
		}
	}()
}

func TestPassesOnTheSignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	lives, err := play(t, "serve", signals, func(o *Options) { signalWhenBeating(o, signals) })
	if err != nil || len(lives) != 1 {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

func TestKeepsTheSignalBackUntilTheProxyTakesNothingNew(t *testing.T) {
	signals := make(chan os.Signal, 1)
	began := time.Now()
	lives, err := play(t, "serve", signals, func(o *Options) {
		o.DrainDelay = 200 * time.Millisecond
		signalWhenBeating(o, signals)
	})
	if err != nil || len(lives) != 1 {
		t.Errorf("%+v, ended with %v", lives, err)
	}
	if took, want := time.Since(began), 200*time.Millisecond+drainLag; took < want {
		t.Errorf("ended after %v, not to happen before %v", took, want)
	}
}

// Until the proxy takes nothing new, requests still come, and an engine that dies is needed again.
func TestAnEngineThatDiesBeforeTheSignalIsPassedOnIsStartedAgain(t *testing.T) {
	signals := make(chan os.Signal, 1)
	lives, err := play(t, "brief serve", signals, func(o *Options) {
		o.DrainDelay = 3 * time.Second // a busy machine may take a second over the first engine's death
		signalWhenBeating(o, signals)
	})
	if err != nil || len(lives) != 2 {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

// A container that starts again has the same process numbers, and may have the files of the supervisor that was killed.
func TestTheMarkOfADeadSupervisorSaysNothing(t *testing.T) {
	lives, err := play(t, "asked usage", nil, func(o *Options) {
		path, err := newHeartbeatFile(o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+stoppingSuffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.As(err, &UsageError{}) || len(lives) != 2 || lives[1].last != Upgrade {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

func TestASecondSignalIsPassedOnAtOnce(t *testing.T) {
	signals := make(chan os.Signal, 2)
	lives, err := play(t, "serve", signals, func(o *Options) {
		o.DrainDelay = time.Hour
		signalWhenBeating(o, signals)
		signalWhenBeating(o, signals)
	})
	if err != nil || len(lives) != 1 {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

func TestKillsAnEngineThatDoesNotEnd(t *testing.T) {
	signals := make(chan os.Signal, 1)
	lives, err := play(t, "stubborn", signals, func(o *Options) {
		o.DrainTimeout = 100*time.Millisecond - drainSlack
		signalWhenBeating(o, signals)
	})
	if !errors.Is(err, ErrKilled) || len(lives) != 1 {
		t.Errorf("%+v, ended with %v", lives, err)
	}
}

// superviseVariable makes this binary play a supervisor.
const superviseVariable = "SUPERVISE_TEST_SUPERVISOR"

func superviseUntilKilled() int {
	program, err := os.Executable()
	if err != nil {
		return 1
	}
	socket := os.Getenv(superviseVariable)
	env := append(os.Environ(), childVariable+"=stubborn", superviseVariable+"=")
	if err := Run(Options{Program: program, Env: env, Socket: socket}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestEngineDiesWithItsSupervisor(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	diary := filepath.Join(dir, "diary")
	c := exec.Command(program)
	c.Env = append(os.Environ(), superviseVariable+"="+socket, diaryVariable+"="+diary)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for Check(socket, Live, time.Hour) != nil {
		if time.Now().After(deadline) {
			t.Fatal("no heartbeat within 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	text, err := os.ReadFile(diary)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.Fields(string(text))[0])
	for syscall.Kill(pid, 0) == nil && !zombie(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("engine %d outlives its supervisor", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// zombie tells whether the process is dead and only nobody has asked.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	socket := filepath.Join(dir, "s")
	if err := Check(socket, Live, time.Minute); err == nil {
		t.Error("alive without a heartbeat")
	}
	path, err := HeartbeatFile(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteHeartbeat(path, Heartbeat{Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Live, time.Minute); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := Check(socket, Started, time.Minute); err == nil {
		t.Error("started while it loads")
	}
	if err := WriteHeartbeat(path, Heartbeat{Sequence: 2, Started: true}); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Started, time.Minute); err != nil {
		t.Errorf("started: %v", err)
	}
	if err := Check(filepath.Join(dir, "other"), Live, time.Minute); err == nil {
		t.Error("the heartbeat of another socket counts")
	}
	old := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := Check(socket, Live, time.Minute); err == nil {
		t.Error("alive with an old heartbeat")
	}
}

// On a full disk there is no second file.
func TestHeartbeatNeedsNoRoomForASecondFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.json")
	long := Heartbeat{Sequence: 1, Activities: []Activity{{Name: strings.Repeat("x", 100)}}}
	if err := WriteHeartbeat(path, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil { // no file can be made under that name now
		t.Fatal(err)
	}
	for sequence := uint64(2); sequence < 5; sequence++ {
		if err := WriteHeartbeat(path, Heartbeat{Sequence: sequence}); err != nil {
			t.Fatal(err)
		}
		if h, _, err := ReadHeartbeat(path); err != nil || h.Sequence != sequence || len(h.Activities) != 0 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if err := WriteHeartbeat(filepath.Join(t.TempDir(), "none", "h.json"), long); err == nil {
		t.Error("nothing could be written, and nobody hears of it")
	}
}

func TestHeartbeatDirectoryMustBePrivate(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	name := heartbeatDirs(filepath.Join(dir, "sub", "s"))[0]
	if err := os.Mkdir(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if path, err := HeartbeatFile(filepath.Join(dir, "sub", "s")); err == nil {
		t.Errorf("writes to %s, where everybody may", path)
	}
}
