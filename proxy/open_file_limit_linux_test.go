package main

import (
	"strings"
	"syscall"
	"testing"
)

func TestFewFilesAreWarnedOf(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	few := syscall.Rlimit{Cur: 512, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Skip("the limit can't be changed here:", err)
	}
	_, warnings, err := runCommand(t, "", []string{"AUTH_DISABLED=true"}, "check-config")
	if err != nil || !strings.Contains(warnings, "512 files") {
		t.Errorf("check-config: %v, %q", err, warnings)
	}
	r := startProxy(t, "AUTH_DISABLED=true")
	if !strings.Contains(r.log.String(), "512 files") {
		t.Errorf("the start says nothing:\n%s", r.log)
	}
	_, warnings, err = runCommand(t, "", []string{"AUTH_DISABLED=true", "MAX_CONNECTIONS=128"}, "check-config")
	if err != nil || strings.Contains(warnings, "512 files") {
		t.Errorf("with fewer connections: %v, %q", err, warnings)
	}
}
