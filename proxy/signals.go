package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// outliveSignals keeps the proxy serving through two signals of which a Go program dies, with all its streams: SIGHUP,
// by which operators ask daemons to read their settings again, and SIGPIPE, which a write to stdout or stderr brings
// once the log's reader has ended. stop gives SIGHUP its usual meaning back.
func outliveSignals(log *slog.Logger) (stop func()) {
	signal.Ignore(syscall.SIGPIPE) // the write fails instead
	if signal.Ignored(syscall.SIGHUP) {
		return func() {} // nohup's doing; Notify would undo it
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			log.Warn("SIGHUP changes nothing: settings are read at the start only; the key file and the certificate are read again whenever they change")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}
