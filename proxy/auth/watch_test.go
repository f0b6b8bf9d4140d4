package auth

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched runs Watch under a clock of the test's own and collects its reports.
type watched struct {
	*Keys
	path    string
	mu      sync.Mutex
	reports []Reload
}

func (w *watched) report(r Reload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
}

func (w *watched) reported() []Reload {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports)
}

func watch(t *testing.T, content string, body func(*watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.yaml")
		writeKeys(t, path, content)
		k, err := Open(Options{File: path, List: "fixed:s-fixed", ParseRate: rateForTest})
		if err != nil {
			t.Fatal(err)
		}
		w := &watched{Keys: k, path: path}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { k.Watch(ctx, w.report) })
		w.wait()
		body(w)
		cancel()
		done.Wait()
	})
}

// wait lets the watcher take as many looks as a change needs.
func (w *watched) wait() {
	time.Sleep(3 * DefaultPoll)
	synctest.Wait()
}

func (w *watched) outcome(secret string) Outcome {
	_, outcome := w.Lookup(secret, now)
	return outcome
}

func (w *watched) lastReport(t *testing.T, count int) Reload {
	t.Helper()
	reports := w.reported()
	if len(reports) != count {
		t.Fatalf("%d reports, want %d: %+v", len(reports), count, reports)
	}
	return reports[count-1]
}

func TestWatchReadsAChangedFile(t *testing.T) {
	watch(t, "keys:\n"+entryFor("a", "s-a"), func(w *watched) {
		if reports := w.reported(); len(reports) != 0 || w.outcome("s-a") != OK {
			t.Fatalf("before a change: %+v", reports)
		}
		writeKeys(t, w.path, "keys:\n"+entryFor("b", "s-b"))
		w.wait()
		if r := w.lastReport(t, 1); r.Err != nil || r.Keys != 2 {
			t.Errorf("%+v", r)
		}
		if w.outcome("s-a") != Unknown || w.outcome("s-b") != OK || w.outcome("s-fixed") != OK {
			t.Error("the keys are not those of the new file and the variable")
		}
		writeKeys(t, w.path, "keys: []\n")
		w.wait()
		if r := w.lastReport(t, 2); r.Err != nil || w.outcome("s-b") != Unknown {
			t.Errorf("all keys revoked: %+v", r)
		}
	})
}

func TestWatchKeepsTheOldKeysWhenTheFileIsBad(t *testing.T) {
	watch(t, "keys:\n"+entryFor("a", "s-a"), func(w *watched) {
		for i, bad := range []string{"", "keys: [", "keys:\n" + entryFor("fixed", "x")} {
			writeKeys(t, w.path, bad)
			w.wait()
			if r := w.lastReport(t, i+1); r.Err == nil || !strings.Contains(r.Err.Error(), w.path) || r.Keys != 2 {
				t.Errorf("%q: %+v", bad, r)
			}
			if w.outcome("s-a") != OK {
				t.Errorf("%q took the old keys away", bad)
			}
		}
		writeKeys(t, w.path, "keys:\n"+entryFor("c", "s-c"))
		w.wait()
		if r := w.lastReport(t, 4); r.Err != nil || w.outcome("s-c") != OK {
			t.Errorf("after it was put right: %+v", r)
		}
	})
}

func TestWatchReportsALostFileOnce(t *testing.T) {
	content := "keys:\n" + entryFor("a", "s-a")
	watch(t, content, func(w *watched) {
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		w.wait()
		w.wait()
		if r := w.lastReport(t, 1); r.Err == nil || w.outcome("s-a") != OK {
			t.Errorf("%+v", r)
		}
		writeKeys(t, w.path, content)
		w.wait()
		if r := w.lastReport(t, 2); r.Err != nil {
			t.Errorf("when it came back: %+v", r)
		}
	})
}

// Kubernetes mounts a secret as a link to a link, and swaps the inner one.
func TestWatchFollowsASwappedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		version := func(name, content string) {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			writeKeys(t, filepath.Join(dir, name, "keys.yaml"), content)
		}
		link := func(target, name string) {
			next := filepath.Join(dir, "next")
			if err := os.Symlink(target, next); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		version("1", "keys:\n"+entryFor("a", "s-a"))
		version("2", "keys:\n"+entryFor("b", "s-b"))
		link("1", "..data")
		link("..data/keys.yaml", "keys.yaml")
		k, err := Open(Options{File: filepath.Join(dir, "keys.yaml")})
		if err != nil {
			t.Fatal(err)
		}
		w := &watched{Keys: k}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { k.Watch(ctx, w.report) })
		link("2", "..data")
		w.wait()
		if r := w.lastReport(t, 1); r.Err != nil || w.outcome("s-b") != OK || w.outcome("s-a") != Unknown {
			t.Errorf("%+v", r)
		}
		cancel()
		done.Wait()
	})
}

// A file that is written in place is read when it has stopped changing.
func TestWatchWaitsForTheWriter(t *testing.T) {
	watch(t, "keys:\n"+entryFor("a", "s-a"), func(w *watched) {
		file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for _, part := range []string{"keys:\n", entryFor("a", "s-a"), entryFor("b", "s-b")} {
			if _, err := file.WriteString(part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(DefaultPoll)
			synctest.Wait()
			if reports := w.reported(); len(reports) != 0 {
				t.Fatalf("read half: %+v", reports)
			}
		}
		w.wait()
		if r := w.lastReport(t, 1); r.Err != nil || w.outcome("s-b") != OK {
			t.Errorf("%+v", r)
		}
	})
}

func TestLookupWhileReloading(t *testing.T) {
	k := openFile(t, "keys:\n"+entryFor("a", "s-a"))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 2000 {
				if key, outcome := k.Lookup("s-a", now); outcome != OK || key.Name != "a" {
					t.Errorf("%v %v", key, outcome)
					return
				}
			}
		})
	}
	for range 50 {
		data, err := readFile(k.options.File)
		if err == nil {
			err = k.reload(data)
		}
		if err != nil {
			t.Error(err)
		}
	}
	readers.Wait()
}

func TestWatchWithoutAFileEnds(t *testing.T) {
	k, err := Open(Options{List: "a:b"})
	if err != nil {
		t.Fatal(err)
	}
	k.Watch(t.Context(), func(Reload) { t.Error("reported") })
}
