package supervise

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/await"
)

func TestHowAnEngineEndedThatDiedWithItsSupervisor(t *testing.T) {
	began := time.Now()
	loads := []Loading{{Model: "m", Version: "v"}}
	killed := LastExit{Kind: Signal, Signal: 9, Crashes: 1}
	for name, test := range map[string]struct {
		note successorNote
		left evidence
		want LastExit
	}{
		"nothing tells why":       {successorNote{}, evidence{}, killed},
		"it ended before":         {successorNote{Ended: &LastExit{Kind: Exit, Code: 7}, MemoryFull: true}, evidence{}, LastExit{Kind: Exit, Code: 7}},
		"no memory was left":      {successorNote{MemoryFull: true}, evidence{}, LastExit{Kind: OOM, Signal: 9, Crashes: 1}},
		"it hung":                 {successorNote{}, evidence{hangSeen: true}, LastExit{Kind: Stall, Signal: 9, Crashes: 1}},
		"it hung when asked":      {successorNote{StopAsked: true}, evidence{hangSeen: true}, LastExit{Kind: Stall, Signal: 9, Crashes: 1}},
		"it was asked to end":     {successorNote{StopAsked: true, MemoryFull: true, Crashes: 3}, evidence{}, LastExit{Kind: Upgrade}},
		"it is long ago":          {successorNote{MemoryFull: true}, evidence{age: maxNoteAge + time.Second}, LastExit{}},
		"again without a token":   {successorNote{Crashes: 2}, evidence{}, LastExit{Kind: Signal, Signal: 9, Crashes: 3}},
		"again, but after tokens": {successorNote{Crashes: 2}, evidence{heartbeat: Heartbeat{Progress: 1}}, killed},
		"while it loaded": {
			successorNote{StartedAt: began, MemoryFull: true}, evidence{heartbeat: Heartbeat{Loads: loads}, writtenAt: began.Add(time.Minute)},
			LastExit{Kind: OOM, Signal: 9, Crashes: 1, Loads: loads, Uptime: time.Minute},
		},
	} {
		if got := test.note.exit(test.left); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// startFakeSupervisor runs a supervisor as a process whose engines do what starts says, until the first of them has
// written its heartbeat.
func startFakeSupervisor(t *testing.T, socket, starts string, env ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program)
	c.Env = append(append(os.Environ(), fakeSupervisorEnv+"="+socket, supervisedStartsEnv+"="+starts, startLogEnv+"="+filepath.Join(t.TempDir(), "log")), env...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it has ended, as a rule
		_ = c.Wait()
	})
	await.Until(t, 30*time.Second, "the first heartbeat", func() bool { return Check(socket, Live, time.Hour) == nil })
	return c
}

// TestTheNextSupervisorKnowsHowTheEngineBeforeItEnded ends a supervisor in each way, and starts the next one for the
// same socket, as when a container is started again.
func TestTheNextSupervisorKnowsHowTheEngineBeforeItEnded(t *testing.T) {
	kill := func(_ *testing.T, _ string, c *exec.Cmd) {
		_ = c.Process.Kill() // waited for by the caller
	}
	for name, test := range map[string]struct {
		engine   string
		memory   string // what is taken of 100 bytes, files in the cache not counted
		end      func(t *testing.T, socket string, c *exec.Cmd)
		lastExit Kind
		loads    int
		found    int64 // memory; is written to the note within a second
	}{
		"killed":                {"stubborn", "", kill, Signal, 0, 0},
		"killed in a load":      {"load", "", kill, Signal, 1, 11},
		"killed for memory":     {"load", "95", kill, OOM, 1, 11},
		"killed, not for files": {"stubborn", "50", kill, Signal, 0, 0},
		"killed by a health check": {"stubborn", "", func(t *testing.T, socket string, c *exec.Cmd) {
			if err := Check(socket, Live, -time.Second); err == nil { // any heartbeat is too old
				t.Error("the health check sees nothing")
			}
			kill(t, socket, c)
		}, Stall, 0, 0},
		"asked to end": {"serve", "", func(t *testing.T, _ string, c *exec.Cmd) {
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}, Upgrade, 0, 11},
		"asked to end, and killed": {"stubborn", "", func(t *testing.T, socket string, c *exec.Cmd) {
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			await.Until(t, 30*time.Second, "the note of the signal", func() bool { return readNote(socket).StopAsked })
			kill(t, socket, c)
		}, Upgrade, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			socket := filepath.Join(t.TempDir(), "s")
			var env []string
			if test.memory != "" {
				env = append(env, memoryFolderEnv+"="+memoryFolder(t, test.memory))
			}
			c := startFakeSupervisor(t, socket, test.engine, env...)
			if test.lastExit == OOM {
				await.Until(t, 30*time.Second, "the note of full memory", func() bool { return readNote(socket).MemoryFull })
			}
			if test.found > 0 {
				await.Until(t, 30*time.Second, "the note of the memory", func() bool { return len(readNote(socket).Memory) > 0 })
			}
			test.end(t, socket, c)
			_ = c.Wait() // how the next one takes it is what is looked at
			starts, err := runSupervisor(t, "usage", nil, func(o *Options) { o.Socket = socket })
			if !errors.As(err, &UsageError{}) || len(starts) != 1 {
				t.Fatalf("%+v, ended with %v", starts, err)
			}
			if got := starts[0]; got.lastExit != test.lastExit || got.loads != test.loads || !got.uptime || got.memory != test.found {
				t.Errorf("the next engine is told %+v, want %s with %d loads, an uptime and %d bytes", got, test.lastExit, test.loads, test.found)
			}
		})
	}
}

// readNote reads the note that a supervisor of the socket has written; zero while there is none.
func readNote(socket string) (n successorNote) {
	dirs := heartbeatDirs(socket)
	text, err := os.ReadFile(filepath.Join(dirs[1], "supervisor-"+socketID(socket)+".note"))
	if err == nil {
		_ = json.Unmarshal(text, &n) // half of it is none yet
	}
	return n
}

func TestTheNoteOfARunningSupervisorIsLeftAlone(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	socket := filepath.Join(t.TempDir(), "s")
	first, _, err := openNote(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.write(func(n *successorNote) { n.Crashes = 4 }); err != nil {
		t.Fatal(err)
	}
	second, last, err := openNote(socket)
	if err != nil || last.Kind != None {
		t.Errorf("the second supervisor is told %+v, %v", last, err)
	}
	if err := second.write(func(n *successorNote) { n.Crashes = 1 }); err != nil {
		t.Fatal(err)
	}
	if n := readNote(socket); n.Crashes != 4 {
		t.Errorf("the second supervisor wrote %+v", n)
	}
	second.close()
	first.close()
	third, last, err := openNote(socket)
	if err != nil || last.Crashes != 5 {
		t.Errorf("after both the next one is told %+v, %v", last, err)
	}
	third.close()
}

func TestANoteThatIsNoneIsNoObstacle(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	socket := filepath.Join(t.TempDir(), "s")
	n, _, err := openNote(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.f.WriteString(`{"ended":`); err != nil {
		t.Fatal(err)
	}
	n.close()
	starts, err := runSupervisor(t, "abort usage", nil, func(o *Options) { o.Socket = socket })
	if !errors.As(err, &UsageError{}) || len(starts) != 2 || starts[0].lastExit != None || starts[1].lastExit != Signal {
		t.Errorf("%+v, ended with %v", starts, err)
	}
}

// In an upgrade without a pause the note is the new supervisor's once the old one has ended.
func TestTheNoteIsTakenFromASupervisorThatEnds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	socket := filepath.Join(t.TempDir(), "s")
	first, _, err := openNote(socket)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := openNote(socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*noteFile{first, second} {
		if err := n.write(func(n *successorNote) { n.StartedAt, n.Crashes = time.Now(), 2 }); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.write(func(n *successorNote) { n.Ended = &LastExit{Kind: Upgrade} }); err != nil {
		t.Fatal(err)
	}
	first.close()
	if err := second.refresh(); err != nil {
		t.Fatal(err)
	}
	second.close() // with its engine
	if third, last, err := openNote(socket); err != nil || last.Kind != Signal || last.Crashes != 3 {
		t.Errorf("the next one is told %+v, %v", last, err)
	} else {
		third.close()
	}
}
