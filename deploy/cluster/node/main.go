//go:build linux

// Node runs a Kubernetes of one node, and a command beside it: every component is a process in mount, network, PID and
// UTS namespaces that are the node's own, so that the machine stays as it is and one kill ends all of it. No systemd,
// Docker or registry is needed. It needs root and cgroups of version 1.
//
//	node -components DIR -state DIR [-image FILE]... COMMAND [ARGUMENT]...
//
// Node ends when the command does, with its exit status. The command finds kubectl and ctr on its PATH, and the
// cluster by KUBECONFIG. FILE is an image as `docker save` writes it. Logs of the components stay in DIR/log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A node runs itself twice: first as process 1 of the new namespaces, which takes over processes whose parent has
// ended, and then as what starts the components, so that the two kinds of waiting don't meet.
const (
	stageOutside    = ""
	stageFirst      = "first"
	stageComponents = "components"
)

type settings struct {
	stage      string
	components string // folder with the programs
	state      string // folder for everything that the node writes
	images     []string
	startup    time.Duration
	command    []string
}

func main() {
	if code, err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(max(code, 1))
	} else {
		os.Exit(code)
	}
}

func run() (code int, err error) {
	s := settings{}
	flag.StringVar(&s.stage, "stage", stageOutside, "set by the program itself")
	flag.StringVar(&s.components, "components", "", "folder with the programs of Kubernetes and Debian")
	flag.StringVar(&s.state, "state", "", "folder for everything that the node writes")
	flag.DurationVar(&s.startup, "startup", 5*time.Minute, "how long the start of all components may take")
	flag.Func("image", "an image to import, as docker save writes it; may be repeated", func(file string) error {
		s.images = append(s.images, file)
		return nil
	})
	flag.Parse()
	s.command = flag.Args()
	if s.components == "" || s.state == "" || len(s.command) == 0 {
		return 64, errors.New("-components, -state and a command are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch s.stage {
	case stageOutside:
		return outside(ctx, s)
	case stageFirst:
		return adopt(s)
	case stageComponents:
		return runNode(ctx, s)
	}
	return 64, fmt.Errorf("no stage is called %s", s.stage)
}

// outside does what the namespaces don't separate, cgroups and files, and waits for what is inside.
func outside(ctx context.Context, s settings) (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("must run as root: it makes namespaces and cgroups")
	}
	for _, folder := range []*string{&s.components, &s.state} {
		absolute, err := filepath.Abs(*folder)
		if err != nil {
			return 1, err
		}
		*folder = absolute
	}
	if err := removeState(s.state); err != nil {
		return 1, err
	}
	if err := writeConfiguration(s); err != nil {
		return 1, err
	}
	groups, err := makeCgroups()
	if err != nil {
		return 1, err
	}
	before := machineSysctls()
	first := again(ctx, s, stageFirst)
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends that started the process
	err = first.Run()
	code, err := exitCode(err)
	return code, errors.Join(err, removeCgroups(groups), removeState(s.state), leftBehind(s.state, before))
}

// again is this program in another stage, which has everything else in common with this one.
func again(ctx context.Context, s settings, stage string) *exec.Cmd {
	args := []string{"-stage", stage, "-components", s.components, "-state", s.state, "-startup", s.startup.String()}
	for _, file := range s.images {
		args = append(args, "-image", file)
	}
	command := exec.CommandContext(ctx, "/proc/self/exe", append(append(args, "--"), s.command...)...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command
}

// adopt is process 1: it waits for every process whose parent has ended, until the one that it started ends.
func adopt(s settings) (int, error) {
	if err := ownMounts(s.state); err != nil { // the other stage is found below the new /proc
		return 1, err
	}
	command := again(context.Background(), s, stageComponents)
	if err := command.Start(); err != nil {
		return 1, fmt.Errorf("start the node: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1, fmt.Errorf("wait for the node's processes: %w", err)
		case pid == command.Process.Pid && status.Signaled():
			return 1, fmt.Errorf("the node was ended by signal %v", status.Signal())
		case pid == command.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// exitCode takes the status of a program that ran out of the error of its Run.
func exitCode(err error) (int, error) {
	var exited *exec.ExitError
	if errors.As(err, &exited) && exited.Exited() {
		return exited.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// removeState removes what an earlier node left, and keeps the logs of the last one until the next begins.
func removeState(state string) error {
	entries, err := os.ReadDir(state)
	if errors.Is(err, os.ErrNotExist) {
		return os.MkdirAll(state, 0o755)
	} else if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "log" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(state, entry.Name())); err != nil {
			return fmt.Errorf("remove what the last node left: %w", err)
		}
	}
	return nil
}

func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "cluster: %s %s\n", time.Now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, values...))
}

// lastLines returns the end of a log, for an error.
func lastLines(file string, lines int) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
