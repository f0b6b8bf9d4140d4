package auth

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// dropPrivileges makes this goroutine open files as an unprivileged user, also where the tests run as root.
func dropPrivileges() error {
	if os.Getuid() != 0 {
		return nil
	}
	runtime.LockOSThread() // until the goroutine ends, and the thread with it
	return syscall.Setfsuid(65534)
}

// A file that was installed with the wrong permissions is read once they are fixed, which changes neither its size nor
// its time.
func TestFileThatMayBeReadAgainIsRead(t *testing.T) {
	k := openKeyFile(t, "keys:\n"+keyEntry("a", "s-a"))
	path := k.options.File
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	replaceFile(t, path, "keys:\n"+keyEntry("b", "s-b"), 0)
	var reports []Reload
	checkThrice := func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := dropPrivileges(); err != nil {
				t.Error(err)
			}
			for range 3 {
				k.checkFile(func(r Reload) { reports = append(reports, r) })
			}
		}()
		<-done
	}
	checkThrice()
	if len(reports) != 1 || reports[0].Err == nil {
		t.Fatalf("unreadable: %+v, want one error", reports)
	}
	if _, outcome := k.Lookup("s-a", now); outcome != OK {
		t.Errorf("the key from before is %v", outcome)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	checkThrice()
	if len(reports) != 2 || reports[1].Err != nil {
		t.Fatalf("readable again: %+v, want a reload", reports)
	}
	if _, outcome := k.Lookup("s-b", now); outcome != OK {
		t.Errorf("the new key is %v", outcome)
	}
}

// replaceFile replaces a file by renaming, with a mode.
func replaceFile(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(next, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}
