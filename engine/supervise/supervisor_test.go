package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestRestartsUntilTheEngineRefusesItsSettings(t *testing.T) {
	starts, err := runSupervisor(t, "abort progress loading progress usage", nil)
	if !errors.As(err, &UsageError{}) {
		t.Errorf("ended with %v", err)
	}
	want := []engineStart{{lastExit: None}, {lastExit: Signal, crashes: 1}, {lastExit: Signal, crashes: 1}, {lastExit: Exit, crashes: 2}, {lastExit: Signal, crashes: 1}}
	if len(starts) != len(want) {
		t.Fatalf("%d starts: %+v", len(starts), starts)
	}
	for i := range want {
		if starts[i].lastExit != want[i].lastExit || starts[i].crashes != want[i].crashes {
			t.Errorf("start %d: %+v, want %+v", i, starts[i], want[i])
		}
	}
}

// What an engine found is told to those after it until one of them found something itself.
func TestMemoryThatAnEngineFoundIsToldToTheNextOnes(t *testing.T) {
	starts, err := runSupervisor(t, "abort found abort usage", nil)
	if !errors.As(err, &UsageError{}) || len(starts) != 4 {
		t.Fatalf("%+v, ended with %v", starts, err)
	}
	for i, want := range []int64{0, 0, 11, 11} {
		if starts[i].memory != want {
			t.Errorf("start %d is told %d bytes, want %d", i, starts[i].memory, want)
		}
	}
}

func TestGivesUpACrashLoop(t *testing.T) {
	starts, err := runSupervisor(t, "abort", nil)
	if !errors.Is(err, ErrCrashLoop) || len(starts) != crashLimit {
		t.Errorf("%d starts, ended with %v", len(starts), err)
	}
}

func TestAPanicIsACrash(t *testing.T) {
	starts, err := runSupervisor(t, "panic usage", nil)
	if !errors.As(err, &UsageError{}) || len(starts) != 2 || starts[1].lastExit != Exit {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

func TestKillsAHungEngine(t *testing.T) {
	starts, err := runSupervisor(t, "hang usage", nil)
	if !errors.As(err, &UsageError{}) || len(starts) != 2 || starts[1].lastExit != Stall {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

// signalAfterFirstHeartbeat sends SIGTERM to the supervisor's channel as soon as an engine has written its heartbeat.
func signalAfterFirstHeartbeat(o *Options, signals chan<- os.Signal) {
	go func() {
		if await.For(time.Minute, func() bool { return Check(o.Socket, Live, time.Hour) == nil }) {
			signals <- syscall.SIGTERM
		}
	}()
}

func TestPassesOnTheSignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	starts, err := runSupervisor(t, "serve", signals, func(o *Options) { signalAfterFirstHeartbeat(o, signals) })
	if err != nil || len(starts) != 1 {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

func TestKeepsTheSignalBackUntilTheProxyTakesNothingNew(t *testing.T) {
	signals := make(chan os.Signal, 1)
	began := time.Now()
	starts, err := runSupervisor(t, "serve", signals, func(o *Options) {
		o.DrainDelay = 200 * time.Millisecond
		signalAfterFirstHeartbeat(o, signals)
	})
	if err != nil || len(starts) != 1 {
		t.Errorf("%+v, ended with %v", starts, err)
	}
	if took, want := time.Since(began), 200*time.Millisecond+drainLag; took < want {
		t.Errorf("ended after %v, not to happen before %v", took, want)
	}
}

// Until the proxy takes nothing new, requests still come, and an engine that dies is needed again.
func TestAnEngineThatDiesBeforeTheSignalIsPassedOnIsStartedAgain(t *testing.T) {
	signals := make(chan os.Signal, 1)
	starts, err := runSupervisor(t, "brief serve", signals, func(o *Options) {
		o.DrainDelay = 3 * time.Second // a busy machine may take a second over the first engine's death
		signalAfterFirstHeartbeat(o, signals)
	})
	if err != nil || len(starts) != 2 {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

// A container that starts again has the same process numbers, and may have the files of the supervisor that was killed.
func TestTheMarkOfADeadSupervisorSaysNothing(t *testing.T) {
	starts, err := runSupervisor(t, "asked usage", nil, func(o *Options) {
		path, err := newHeartbeatFile(o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+stoppingSuffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.As(err, &UsageError{}) || len(starts) != 2 || starts[1].lastExit != Upgrade {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

// On a full disk, whatever fills it would take the room of a file that is removed between two engines.
func TestTheNextEngineFindsRoomForItsHeartbeat(t *testing.T) {
	for _, before := range []string{"brief", "asked", "panic"} {
		starts, err := runSupervisor(t, before+" overwrite", nil)
		if !errors.As(err, &UsageError{}) || len(starts) != 2 {
			t.Errorf("after %q: %+v, ended with %v", before, starts, err)
		}
	}
}

func TestASecondSignalIsPassedOnAtOnce(t *testing.T) {
	signals := make(chan os.Signal, 2)
	starts, err := runSupervisor(t, "serve", signals, func(o *Options) {
		o.DrainDelay = time.Hour
		signalAfterFirstHeartbeat(o, signals)
		signalAfterFirstHeartbeat(o, signals)
	})
	if err != nil || len(starts) != 1 {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

func TestKillsAnEngineThatDoesNotEnd(t *testing.T) {
	signals := make(chan os.Signal, 1)
	starts, err := runSupervisor(t, "stubborn", signals, func(o *Options) {
		o.DrainTimeout = 100*time.Millisecond - drainSlack
		signalAfterFirstHeartbeat(o, signals)
	})
	if !errors.Is(err, ErrKilled) || len(starts) != 1 {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

func TestEngineDiesWithItsSupervisor(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	startLog := filepath.Join(dir, "startLog")
	c := exec.Command(program)
	c.Env = append(os.Environ(), fakeSupervisorEnv+"="+socket, startLogEnv+"="+startLog)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, 10*time.Second, "the first heartbeat", func() bool { return Check(socket, Live, time.Hour) == nil })
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	text, err := os.ReadFile(startLog)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.Fields(string(text))[0])
	await.Until(t, 10*time.Second, "the engine ends with its supervisor", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
}

// zombie reports whether the process is dead and only its exit status wasn't read.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}
