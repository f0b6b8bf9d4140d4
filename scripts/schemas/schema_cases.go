//go:build llama

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/ulikunitz/xz"
)

// schemaCase is a schema with instances.
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
		return readTestSuite(in, strings.Contains(filepath.ToSlash(path), "/draft7/"))
	}
	return readJSONLines(in)
}

// readTestSuite reads a file of the JSON Schema Test Suite. Its schemas of draft 7 lack $schema, which is added.
func readTestSuite(in io.Reader, draft7 bool) ([]schemaCase, error) {
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

func readJSONLines(in *bufio.Reader) ([]schemaCase, error) {
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
