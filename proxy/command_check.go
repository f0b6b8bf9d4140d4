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

// checkConfig loads settings and keys as serve does, and prints what it found.
func checkConfig(_ context.Context, p program) error {
	c, err := loadConfig(p.args, p.environ)
	if err != nil {
		return err
	}
	k, err := openKeys(c)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
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
		fmt.Fprintln(p.stderr, "warning:", w)
	}
	if k != nil {
		fmt.Fprintf(p.stdout, "%d API keys\n", k.Len())
	}
	_, err = fmt.Fprintln(p.stdout, "the settings are good")
	return err
}

// openKeys reads the API keys; nil when they are off.
func openKeys(c *Config) (*auth.Keys, error) {
	if c.AuthDisabled {
		return nil, nil
	}
	k, err := auth.Open(auth.Options{File: c.APIKeysFile, List: strings.Join(c.APIKeys, ","), ParseRate: parseKeyRate})
	if errors.Is(err, auth.ErrNoKeys) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("open API keys: %w", err)
	}
	return k, nil
}

func parseKeyRate(text string) (auth.Rate, error) {
	rate, err := limit.Parse(text)
	return auth.Rate(rate), err
}
