//go:build llama

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/ulikunitz/xz"
)

// schemaCase is one schema with instances.
type schemaCase struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Schema      jsontext.Value `json:"schema"`
	Tests       []struct {
		Valid bool           `json:"valid"`
		Data  jsontext.Value `json:"data"`
	} `json:"tests"`
}

func readCases(path string) ([]schemaCase, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	if strings.HasSuffix(path, ".xz") {
		r, err := xz.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReaderSize(r, 1<<20)
	}
	first, err := in.Peek(1)
	if err != nil {
		return nil, err
	}
	if first[0] == '[' {
		return readSuite(in, strings.Contains(filepath.ToSlash(path), "/draft7/"))
	}
	return readLines(in)
}

// readSuite reads a file of the suite. Its schemas of draft 7 don't say that they are.
func readSuite(in io.Reader, draft7 bool) ([]schemaCase, error) {
	var list []schemaCase
	if err := json.UnmarshalRead(in, &list); err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Name = list[i].Description
		if rest, ok := strings.CutPrefix(strings.TrimSpace(string(list[i].Schema)), "{"); ok && draft7 && !strings.Contains(rest, `"$schema"`) {
			separator := ","
			if strings.TrimSpace(rest) == "}" {
				separator = ""
			}
			list[i].Schema = jsontext.Value(`{"$schema":"http://json-schema.org/draft-07/schema#"` + separator + rest)
		}
	}
	return list, nil
}

func readLines(in *bufio.Reader) ([]schemaCase, error) {
	var list []schemaCase
	for {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var c schemaCase
			if err := json.Unmarshal(line, &c, jsontext.AllowDuplicateNames(true)); err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

var place = regexp.MustCompile(`(\$?[A-Za-z]+) at /`)

// refuse counts a schema under the keyword that can't be obeyed.
func (b *bench) refuse(c schemaCase, err error) {
	b.refused++
	reason := "other"
	if m := place.FindStringSubmatch(err.Error()); m != nil {
		reason = m[1]
	}
	b.refusals[reason]++
	b.say("%s: refused: %v", c.Name, err)
}
