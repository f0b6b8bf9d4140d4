package main

import (
	"context"
	"fmt"

	"tandem/proxy/auth"
)

// keys makes and hashes API keys. It needs no settings.
func keys(_ context.Context, p program) error {
	switch {
	case len(p.args) == 2 && p.args[0] == "new":
		return auth.NewKey(p.args[1], p.stdout, p.stderr)
	case len(p.args) == 1 && p.args[0] == "hash":
		return auth.HashKey(p.stdin, p.stdout)
	}
	return fmt.Errorf("keys needs new NAME or hash: %w", errUsage)
}
