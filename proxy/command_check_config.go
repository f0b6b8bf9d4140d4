package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"tandem/proxy/auth"
	"tandem/proxy/limit"
	"tandem/schema/settings"
)

// checkConfig loads settings and keys as serve does, and prints them.
func checkConfig(_ context.Context, inv invocation) error {
	c, k, err := loadConfigAndKeys(inv.args, inv.environ)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(inv.stdout, 0, 0, 2, ' ', 0)
	for _, s := range settings.All() {
		if !s.Owner.Uses(settings.Proxy) {
			continue
		}
		source, where := c.Values.Source(s.Env)
		if where == "" || source != settings.FromFile {
			where = source.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Env, c.Values.Text(s.Env), where)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(inv.stderr, "warning:", w)
	}
	if k != nil {
		fmt.Fprintf(inv.stdout, "%d API keys\n", k.Len())
	}
	_, err = fmt.Fprintln(inv.stdout, "the settings are good")
	return err
}

// loadConfigAndKeys reads settings and API keys, which are nil when they are off. The error has everything that is
// wrong with either.
func loadConfigAndKeys(args, environ []string) (*Config, *auth.Keys, error) {
	c, err := loadConfig(args, environ)
	if c == nil {
		return nil, nil, err
	}
	err = settings.Check(err, c.checkEnvironment())
	var k *auth.Keys
	var wrong error
	if c.hasKeys() {
		k, wrong = auth.Open(auth.Options{File: c.APIKeysFile, List: strings.Join(c.APIKeys, ","), ParseRate: parseKeyRate})
	}
	if err := errors.Join(err, wrong); err != nil {
		return nil, nil, err
	}
	return c, k, nil
}

func parseKeyRate(text string) (auth.Rate, error) {
	rate, err := limit.ParseRate(text)
	return auth.Rate(rate), err
}
