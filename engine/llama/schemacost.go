//go:build llama

package llama

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The library's conversion of a JSON schema can't be interrupted, works with the third power of an object's optional properties, unfolds
// allOf and lists of types again and again, and recurses along references and names. So what it would do is added up here first.
const (
	schemaWorkMax  = 8192 // steps; some 100 ms
	schemaDepthMax = 512  // of references and nesting together
	schemaNameMax  = 1024 // bytes of a property's name
	schemaTypesMax = 16   // in one list of types
	cubeStep       = 4096 // of the optional properties' third power, one step
)

// schemaCost walks a schema as the conversion does.
type schemaCost struct {
	root any
	seen map[string]bool // references whose target was walked; the library converts each once
	work int
	err  error // the first; ends the walk
}

// checkSchemaCost needs a schema that is JSON of a bounded depth.
func checkSchemaCost(schema []byte) error {
	c := schemaCost{seen: make(map[string]bool)}
	d := json.NewDecoder(bytes.NewReader(schema))
	d.UseNumber()
	if err := d.Decode(&c.root); err != nil {
		return fmt.Errorf("%w: the JSON schema is no JSON: %w", ErrGrammar, err)
	}
	c.walk(c.root, 0)
	return c.err
}

func (c *schemaCost) refuse(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: the JSON schema %s", ErrGrammar, fmt.Sprintf(format, args...))
	}
}

// spend counts steps at a depth and tells whether the walk goes on.
func (c *schemaCost) spend(steps, depth int) bool {
	if c.work += steps; c.work > schemaWorkMax {
		c.refuse("unfolds to too much")
	}
	if depth > schemaDepthMax {
		c.refuse("has references or parts that are nested more than %d deep", schemaDepthMax)
	}
	return c.err == nil
}

func (c *schemaCost) walk(node any, depth int) {
	s, ok := node.(map[string]any)
	if !ok || !c.spend(1, depth) {
		return
	}
	if ref, ok := s["$ref"].(string); ok && !c.seen[ref] {
		c.seen[ref] = true
		c.walk(c.target(ref), depth+1)
	}
	for range c.times(s, "object") {
		c.object(s, depth+1)
	}
	for range c.times(s, "array") {
		c.each(s["items"], depth+1)
		c.each(s["prefixItems"], depth+1)
	}
	c.each(s["anyOf"], depth+1)
	c.each(s["oneOf"], depth+1)
	for range max(c.times(s, "object"), c.times(s, "string")) {
		c.allOf(s, depth+1)
	}
}

// times is how often a schema is taken as one of this type.
func (c *schemaCost) times(s map[string]any, kind string) int {
	list, ok := s["type"].([]any)
	if !ok {
		return 1 // not worth a closer look
	}
	if len(list) > schemaTypesMax {
		c.refuse("has a list of %d types, at most %d are allowed", len(list), schemaTypesMax)
		return 0
	}
	n := 0
	for _, t := range list {
		if t == kind {
			n++
		}
	}
	return n
}

// each walks the schemas of a list, or the one that stands in its place.
func (c *schemaCost) each(node any, depth int) {
	list, ok := node.([]any)
	if !ok {
		c.walk(node, depth)
		return
	}
	for _, child := range list {
		c.walk(child, depth)
	}
}

func (c *schemaCost) object(s map[string]any, depth int) {
	properties, _ := s["properties"].(map[string]any)
	required := make(map[any]bool)
	if list, ok := s["required"].([]any); ok {
		for _, name := range list {
			if text, ok := name.(string); ok {
				required[text] = true
			}
		}
	}
	optional := 0
	for name, child := range properties {
		if len(name) > schemaNameMax {
			c.refuse("has a name of %d bytes, at most %d are allowed", len(name), schemaNameMax)
		}
		if !required[name] {
			optional++
		}
		c.walk(child, depth)
	}
	c.walk(s["additionalProperties"], depth)
	c.spend(cube(optional), depth)
}

func cube(n int) int { return n * n * n / cubeStep }

// allOf puts the properties of its parts together; what a part refers to is converted again for each mention.
func (c *schemaCost) allOf(s map[string]any, depth int) {
	list, _ := s["allOf"].([]any)
	merged := 0
	for _, child := range list {
		c.walk(child, depth)
		part, _ := child.(map[string]any)
		merged += c.merge(part, depth)
		for _, key := range []string{"anyOf", "oneOf"} {
			alternatives, _ := part[key].([]any)
			for _, alternative := range alternatives {
				of, _ := alternative.(map[string]any)
				merged += c.merge(of, depth)
			}
		}
		if !c.spend(0, depth) {
			return
		}
	}
	c.spend(cube(merged), depth)
}

// merge is how many properties a part of an allOf brings.
func (c *schemaCost) merge(part map[string]any, depth int) int {
	properties, _ := part["properties"].(map[string]any)
	ref, ok := part["$ref"].(string)
	if !ok || !c.spend(1, depth) {
		return len(properties)
	}
	target, _ := c.target(ref).(map[string]any)
	c.object(target, depth+1)
	return len(properties) + c.merge(target, depth+1)
}

// target is what a reference into the document means; nil for one that the library refuses.
func (c *schemaCost) target(ref string) any {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil
	}
	at := c.root
	for name := range strings.SplitSeq(path, "/") {
		switch here := at.(type) {
		case map[string]any:
			at = here[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(here) {
				return nil
			}
			at = here[i]
		default:
			return nil
		}
	}
	return at
}
