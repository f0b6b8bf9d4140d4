package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Limits of a key file.
const (
	MaxFileBytes = 4 << 20
	maxNameBytes = 64
	maxProblems  = 20 // reported at once

	minWeight, maxWeight = 0.01, 100
	maxConcurrency       = 1_000_000
	maxTokensPerMinute   = 100_000_000
)

// entry is a key with its hash and the line that defines it.
type entry struct {
	Key
	digest digest
	line   int // 0: from API_KEYS
}

// ParseRate reads the rate_limit of a key; the owner passes limit.ParseRate here.
type ParseRate func(string) (Rate, error)

// problemList collects everything that is wrong, each with its line, so that all of it is reported at once.
type problemList []error

func (m *problemList) add(line int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if line > 0 {
		text = fmt.Sprintf("line %d: %s", line, text)
	}
	switch {
	case len(*m) < maxProblems:
		*m = append(*m, errors.New(text))
	case len(*m) == maxProblems:
		*m = append(*m, errors.New("and more"))
	}
}

// parseFile reads a key file. The error lists every mistake, one a line.
func parseFile(data []byte, parseRate ParseRate) ([]entry, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxFileBytes)
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; for no keys at all write keys: []")
	} else if err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one YAML document")
	}
	var problems problemList
	entries := parseDocument(&document, parseRate, &problems)
	checkUnique(entries, &problems)
	return entries, errors.Join(problems...)
}

func parseDocument(document *yaml.Node, parseRate ParseRate, problems *problemList) []entry {
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		problems.add(root.Line, "want keys: followed by a list")
		return nil
	}
	var entries []entry
	var found bool
	for field := range fields(root, "the file", problems) {
		if field.name != "keys" {
			problems.add(field.line, "unknown field %q; only keys is known", field.name)
			continue
		}
		found = true
		if field.value.Kind != yaml.SequenceNode {
			problems.add(field.line, "keys must be a list")
			continue
		}
		for _, item := range field.value.Content {
			entries = append(entries, parseKey(item, parseRate, problems))
		}
	}
	if !found {
		problems.add(root.Line, "keys is missing; for no keys at all write keys: []")
	}
	return entries
}

type field struct {
	name  string
	line  int
	value *yaml.Node
}

// fields gives each field of a mapping once; a field that occurs twice is a mistake.
func fields(mapping *yaml.Node, where string, problems *problemList) func(func(field) bool) {
	return func(yield func(field) bool) {
		seen := map[string]bool{}
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			name, value := mapping.Content[i], mapping.Content[i+1]
			if name.Kind != yaml.ScalarNode || seen[name.Value] {
				problems.add(name.Line, "%s has the field %q twice, or a field without a name", where, name.Value)
				continue
			}
			seen[name.Value] = true
			if !yield(field{name.Value, name.Line, value}) {
				return
			}
		}
	}
}

func parseKey(node *yaml.Node, parseRate ParseRate, problems *problemList) entry {
	e := entry{Key: Key{Enabled: true}, line: node.Line}
	if node.Kind != yaml.MappingNode {
		problems.add(node.Line, "want an entry such as {name: …, sha256: …}")
		return e
	}
	var named, hashed bool
	for f := range fields(node, "the entry", problems) {
		named = named || f.name == "name"
		hashed = hashed || f.name == "sha256"
		if err := e.parseField(f, parseRate); err != nil {
			problems.add(f.value.Line, "%s: %v", f.name, err)
		}
	}
	if !named {
		problems.add(node.Line, "the entry has no name")
	}
	if !hashed {
		problems.add(node.Line, "the entry has no sha256")
	}
	return e
}

func (e *entry) parseField(f field, parseRate ParseRate) error {
	if f.name == "models" {
		return e.parseModels(f.value)
	}
	if f.value.Kind != yaml.ScalarNode || f.value.ShortTag() == "!!null" {
		return errors.New("want one value; to leave it unset, leave the field out")
	}
	text := f.value.Value
	switch f.name {
	case "name":
		e.Name = text
		return checkName(text)
	case "sha256":
		return e.parseDigest(text)
	case "domain":
		e.Domain = text
		return checkName(text)
	case "rate_limit":
		rate, err := parseRate(text)
		e.Rate = &rate
		return err
	case "concurrency":
		return parseCount(text, maxConcurrency, &e.Concurrency)
	case "tokens_per_minute":
		return parseCount(text, maxTokensPerMinute, &e.TokensPerMinute)
	case "weight":
		return e.parseWeight(text)
	case "expires":
		return e.parseExpires(text)
	case "enabled":
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", clip(text))
		}
		e.Enabled = text == "true"
		return nil
	}
	return errors.New("unknown field; known are name, sha256, domain, rate_limit, tokens_per_minute, concurrency, weight, models, expires, enabled")
}

func (e *entry) parseDigest(text string) error {
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != sha256.Size {
		return errors.New("want the 64 hexadecimal digits that tandem-proxy keys hash prints")
	}
	e.digest = digest(sum)
	return nil
}

// parseCount reads a whole number from 1 on.
func parseCount(text string, most int, count *int) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return fmt.Errorf("%q is no whole number from 1 to %d; to set no limit, leave the field out", clip(text), most)
	}
	*count = n
	return nil
}

func (e *entry) parseWeight(text string) error {
	weight, err := strconv.ParseFloat(text, 64)
	if err != nil || !(weight >= minWeight && weight <= maxWeight) {
		return fmt.Errorf("%q is no number from %v to %v", clip(text), minWeight, maxWeight)
	}
	e.Weight = weight
	return nil
}

func (e *entry) parseExpires(text string) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			e.Expires = t
			return nil
		}
	}
	return fmt.Errorf("%q is no time such as 2027-01-31 (its start, UTC) or 2027-01-31T12:00:00Z", clip(text))
}

func (e *entry) parseModels(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return errors.New("want a list of model names; to allow all, leave the field out")
	}
	for _, item := range list.Content {
		if item.Kind != yaml.ScalarNode || item.ShortTag() == "!!null" || item.Value == "" {
			return fmt.Errorf("line %d is no model name", item.Line)
		}
		e.Models = append(e.Models, item.Value)
	}
	return nil
}

// checkName keeps names and domains fit for a metric label and a log line.
func checkName(s string) error {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("%q may have only letters and digits, and . _ - after the first", clip(s))
		}
	}
	if s == "" || len(s) > maxNameBytes {
		return fmt.Errorf("want 1 to %d bytes", maxNameBytes)
	}
	return nil
}

func clip(s string) string {
	if len(s) > maxNameBytes {
		return s[:maxNameBytes] + "…"
	}
	return s
}
