package main

import (
	"bytes"
	"fmt"
	"strings"

	"tandem/schema/settings"
)

const settingsHead = `# Settings

<!-- Made by go run ./scripts/docs from schema/settings. Change it there. -->

Every setting is a variable, a command-line flag (the variable in lower case with dashes:
` + "`--queue-capacity=64`" + `) and, apart from two, a key of the configuration file that ` + "`CONFIG_FILE`" + ` names. A flag
goes over a variable, that over the file, that over the default. An empty variable counts as not set.

Both programs read the same file; each checks the whole of it and uses its own keys. Everything that is wrong is
reported at once, with the line, and nothing starts. ` + "`tandem-proxy check-config`" + ` checks without starting. The file
with every key and its default is [deploy/config.example.yaml](../deploy/config.example.yaml).

Durations are written as ` + "`300ms`, `10s`, `5m`, `1h30m`" + `; sizes as ` + "`4096`, `512KiB`, `8MiB`" + `; lists as
` + "`a,b,c`" + ` or as a YAML list; rates as ` + "`5/minute`" + ` (second, minute, hour, day) or ` + "`off`" + `.
`

// section is a part of the settings with a common first key.
type section struct {
	name string // empty: not in the file
	list []*settings.Setting
}

// sections groups the settings, in the order in which sections first appear.
func sections() []section {
	var out []section
	at := make(map[string]int)
	for _, s := range settings.All() {
		name, _, _ := strings.Cut(s.Path, ".")
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, section{name: name})
		}
		out[i].list = append(out[i].list, s)
	}
	return out
}

func settingsPage() []byte {
	var b bytes.Buffer
	b.WriteString(settingsHead)
	for _, s := range sections() {
		title := "`" + s.name + "`"
		if s.name == "" {
			title = "Outside of the file"
		}
		fmt.Fprintf(&b, "\n## %s\n\n| Variable | Key | Default | Values | Used by | What it does |\n|---|---|---|---|---|---|\n", title)
		for _, one := range s.list {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", one.Env, code(one.Path), code(one.Default), valuesOf(one), owner(one), cell(one.Help))
		}
	}
	return b.Bytes()
}

func valuesOf(s *settings.Setting) string {
	text := string(s.Kind)
	if r := s.Range(); r != "" {
		text += ": " + r
	}
	return text
}

func owner(s *settings.Setting) string {
	if s.Owner == settings.Both {
		return "both"
	}
	return string(s.Owner)
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// cell makes text fit into a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(text)
}

const exampleHead = `# Configuration of tandem-proxy and tandem-engine; both read the same file. Name it with CONFIG_FILE or --config-file.
# Made by go run ./scripts/docs from schema/settings. Every key is commented out and shows its default; a flag or variable goes over it.
`

func exampleConfig() []byte {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	for _, s := range sections() {
		if s.name == "" {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", s.name)
		open := s.name
		for _, one := range s.list {
			depth := strings.Count(one.Path, ".")
			indent := strings.Repeat("  ", depth)
			if below := one.Section(); below != open {
				if depth > 1 {
					fmt.Fprintf(&b, "  %s:\n", below[strings.LastIndexByte(below, '.')+1:])
				}
				open = below
			}
			fmt.Fprintf(&b, "%s# %s\n", indent, one.Help)
			fmt.Fprintf(&b, "%s# %s; variable %s, flag --%s; used by %s.\n", indent, valuesOf(one), one.Env, one.Flag(), users(one))
			fmt.Fprintf(&b, "%s#%s: %s\n", indent, one.Key(), yamlValue(one))
		}
	}
	return b.Bytes()
}

func users(s *settings.Setting) string {
	if s.Owner == settings.Both {
		return "both programs"
	}
	return "the " + string(s.Owner)
}

// yamlValue writes the default as it would stand in the file.
func yamlValue(s *settings.Setting) string {
	switch {
	case s.Kind == settings.List:
		return "[" + strings.ReplaceAll(s.Default, ",", ", ") + "]"
	case s.Default == "":
		return `""`
	}
	return s.Default
}
