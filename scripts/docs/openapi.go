package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"

	"tandem/proxy/openapi"
	"tandem/proxy/server"
)

const (
	openAPIDocument = "proxy/server/openapi/document.json"
	// openAPIExamples has replies of a running server, which the end-to-end tests capture (CAPTURE_EXAMPLES=1).
	openAPIExamples = "proxy/server/openapi/examples"
)

// openAPIPage is the OpenAPI document, out of what the endpoints say of themselves and the captured examples.
func openAPIPage(root string) (page, error) {
	captured, err := readExamples(filepath.Join(root, filepath.FromSlash(openAPIExamples)))
	if err != nil {
		return page{}, err
	}
	text, err := server.OpenAPI(captured)
	return page{openAPIDocument, text}, err
}

// readExamples reads captured replies: infer.answer.json is that to the example answer of the operation infer.
func readExamples(dir string) (map[string]openapi.Captured, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("look for examples in %s: %w", dir, err)
	}
	captured := map[string]openapi.Captured{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read example: %w", err)
		}
		var c openapi.Captured
		if err := json.Unmarshal(text, &c); err != nil {
			return nil, fmt.Errorf("read example %s: %w", file, err)
		}
		captured[strings.TrimSuffix(filepath.Base(file), ".json")] = c
	}
	return captured, nil
}
