package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"tandem/schema/settings"
)

// printSettings prints the settings, which are good, and where each value comes from.
func printSettings(c *Config, stdout, stderr io.Writer) int {
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, s := range settings.All() {
		if !s.Owner.Uses(settings.Engine) {
			continue
		}
		source, where := c.Values.Source(s.Env)
		if where == "" || source != settings.FromFile {
			where = source.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Env, c.Values.Text(s.Env), where)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if err := table.Flush(); err != nil {
		fmt.Fprintf(stderr, "tandem-engine: write settings: %v\n", err)
		return codeFailed
	}
	fmt.Fprintln(stdout, "the settings are good")
	return 0
}
