package main

import (
	"context"
	"io"
	"log/slog"

	"tandem/proxy/auth"
)

// serve runs the proxy until ctx ends, then drains.
func serve(ctx context.Context, inv invocation) error {
	c, keys, err := loadConfigAndKeys(inv.args, inv.environ)
	if err != nil {
		return err
	}
	log := newLogger(inv.stderr, c)
	slog.SetDefault(log)
	stop := outliveSignals(log)
	defer stop()
	logStartup(log, c, keys)

	s, err := newService(ctx, c, keys, log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

func newLogger(w io.Writer, c *Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// logStartup logs what an operator should know at once.
func logStartup(log *slog.Logger, c *Config, keys *auth.Keys) {
	log.Info("tandem-proxy starts", "version", version, "revision", revision)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	if keys == nil {
		log.Warn("AUTH_DISABLED=true: everybody who reaches this server may use it")
	} else {
		log.Info("API keys are loaded", "keys", keys.Len())
	}
	if !c.DefaultModelSet {
		log.Info("DEFAULT_MODEL is not set: the documented default where it is installed, otherwise the only installed model, else the demo model", "default", c.DefaultModel)
	}
}
