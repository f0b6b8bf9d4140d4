package main

import (
	"context"
	"io"

	"tandem/proxy/adminsocket"
)

// drain asks the running proxy to begin its drain and returns when its readiness is off.
func drain(ctx context.Context, inv invocation) error {
	c, err := loadConfig(inv.args, inv.environ)
	if err != nil {
		return err
	}
	answer, err := adminsocket.Drain(ctx, adminsocket.Path(c.EngineSocket))
	if err != nil {
		return err
	}
	_, err = io.WriteString(inv.stdout, answer)
	return err
}
