package main

import (
	"context"
	"fmt"

	"tandem/proxy/auth"
)

// keys makes and hashes API keys. It needs no settings.
func keys(_ context.Context, inv invocation) error {
	switch {
	case len(inv.args) == 2 && inv.args[0] == "new":
		return auth.NewKey(inv.args[1], inv.stdout, inv.stderr)
	case len(inv.args) == 1 && inv.args[0] == "hash":
		return auth.HashKey(inv.stdin, inv.stdout)
	}
	return fmt.Errorf("keys needs new NAME or hash: %w", errUsage)
}
