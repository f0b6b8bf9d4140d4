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

// watchTest is a Watch that runs on the fake clock of a synctest bubble, with the reports that it made.
type watchTest struct {
	*Keys
	path    string
	mu      sync.Mutex
	reports []Reload
}

func (w *watchTest) report(r Reload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
}

func (w *watchTest) reported() []Reload {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports)
}

func runWatchTest(t *testing.T, content string, body func(*watchTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.yaml")
		writeKeyFile(t, path, content)
		k, err := Open(Options{File: path, List: "fixed:s-fixed", ParseRate: parseTestRate})
		if err != nil {
			t.Fatal(err)
		}
		w := &watchTest{Keys: k, path: path}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { k.Watch(ctx, w.report) })
		w.waitForReload()
		body(w)
		cancel()
		done.Wait()
	})
}

// waitForReload lets Watch check the file as often as a change needs.
func (w *watchTest) waitForReload() {
	time.Sleep(3 * DefaultPollInterval)
	synctest.Wait()
}

func (w *watchTest) outcome(secret string) Outcome {
	_, outcome := w.Lookup(secret, now)
	return outcome
}

func (w *watchTest) lastReport(t *testing.T, count int) Reload {
	t.Helper()
	reports := w.reported()
	if len(reports) != count {
		t.Fatalf("%d reports, want %d: %+v", len(reports), count, reports)
	}
	return reports[count-1]
}

func TestWatchReadsAChangedFile(t *testing.T) {
	runWatchTest(t, "keys:\n"+keyEntry("a", "s-a"), func(w *watchTest) {
		if reports := w.reported(); len(reports) != 0 || w.outcome("s-a") != OK {
			t.Fatalf("before a change: %+v", reports)
		}
		writeKeyFile(t, w.path, "keys:\n"+keyEntry("b", "s-b"))
		w.waitForReload()
		if r := w.lastReport(t, 1); r.Err != nil || r.Keys != 2 {
			t.Errorf("%+v", r)
		}
		if w.outcome("s-a") != Unknown || w.outcome("s-b") != OK || w.outcome("s-fixed") != OK {
			t.Error("the keys are not those of the new file and the variable")
		}
		writeKeyFile(t, w.path, "keys: []\n")
		w.waitForReload()
		if r := w.lastReport(t, 2); r.Err != nil || w.outcome("s-b") != Unknown {
			t.Errorf("all keys revoked: %+v", r)
		}
	})
}

func TestWatchKeepsTheOldKeysWhenTheFileIsBad(t *testing.T) {
	runWatchTest(t, "keys:\n"+keyEntry("a", "s-a"), func(w *watchTest) {
		for i, bad := range []string{"", "keys: [", "keys:\n" + keyEntry("fixed", "x")} {
			writeKeyFile(t, w.path, bad)
			w.waitForReload()
			if r := w.lastReport(t, i+1); r.Err == nil || !strings.Contains(r.Err.Error(), w.path) || r.Keys != 2 {
				t.Errorf("%q: %+v", bad, r)
			}
			if w.outcome("s-a") != OK {
				t.Errorf("%q took the old keys away", bad)
			}
		}
		writeKeyFile(t, w.path, "keys:\n"+keyEntry("c", "s-c"))
		w.waitForReload()
		if r := w.lastReport(t, 4); r.Err != nil || w.outcome("s-c") != OK {
			t.Errorf("after it was put right: %+v", r)
		}
	})
}

func TestWatchReportsALostFileOnce(t *testing.T) {
	content := "keys:\n" + keyEntry("a", "s-a")
	runWatchTest(t, content, func(w *watchTest) {
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		w.waitForReload()
		w.waitForReload()
		if r := w.lastReport(t, 1); r.Err == nil || w.outcome("s-a") != OK {
			t.Errorf("%+v", r)
		}
		writeKeyFile(t, w.path, content)
		w.waitForReload()
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
			writeKeyFile(t, filepath.Join(dir, name, "keys.yaml"), content)
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
		version("1", "keys:\n"+keyEntry("a", "s-a"))
		version("2", "keys:\n"+keyEntry("b", "s-b"))
		link("1", "..data")
		link("..data/keys.yaml", "keys.yaml")
		k, err := Open(Options{File: filepath.Join(dir, "keys.yaml")})
		if err != nil {
			t.Fatal(err)
		}
		w := &watchTest{Keys: k}
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { k.Watch(ctx, w.report) })
		link("2", "..data")
		w.waitForReload()
		if r := w.lastReport(t, 1); r.Err != nil || w.outcome("s-b") != OK || w.outcome("s-a") != Unknown {
			t.Errorf("%+v", r)
		}
		cancel()
		done.Wait()
	})
}

// A file that is written in place is read when it has stopped changing.
func TestWatchWaitsForTheWriter(t *testing.T) {
	runWatchTest(t, "keys:\n"+keyEntry("a", "s-a"), func(w *watchTest) {
		file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for _, part := range []string{"keys:\n", keyEntry("a", "s-a"), keyEntry("b", "s-b")} {
			if _, err := file.WriteString(part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(DefaultPollInterval)
			synctest.Wait()
			if reports := w.reported(); len(reports) != 0 {
				t.Fatalf("read half: %+v", reports)
			}
		}
		w.waitForReload()
		if r := w.lastReport(t, 1); r.Err != nil || w.outcome("s-b") != OK {
			t.Errorf("%+v", r)
		}
	})
}

func TestLookupWhileReloading(t *testing.T) {
	k := openKeyFile(t, "keys:\n"+keyEntry("a", "s-a"))
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
