package grammar

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds on the schemas of tools for llama.cpp's converter, which makes a parser and a grammar of them before another
// library gets them. It has none of its own: small schemas may take it hours, all of the memory, or its stack.
const (
	converterPropertiesMax = 500       // of one object: its time grows with the third power of the optional ones
	converterNameMax       = 1 << 10   // bytes of a property's name and a $ref: a pattern takes a stack frame for each
	converterDepthMax      = 500       // levels of schemas, references counted as what they lead to
	converterWorkMax       = 1_000_000 // of all tools of a request, in about 1 µs on a processor of 2023
)

// ConverterCheck estimates the work of llama.cpp's converter for the tools of one request. It does what
// common/json-schema.cpp and common/json-schema-to-grammar.cpp do in v0.5.0; where those stop with an error it may go
// on.
type ConverterCheck struct {
	left  float64             // of converterWorkMax
	rules map[string]struct{} // names of the grammar's rules
	text  int                 // bytes of the grammar
}

// NewConverterCheck begins the check of a request.
func NewConverterCheck() *ConverterCheck {
	return &ConverterCheck{left: converterWorkMax, rules: make(map[string]struct{})}
}

// Add returns an error if the schema of a tool is too much for the converter, by itself or together with those before.
func (c *ConverterCheck) Add(tool string, schema []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(schema), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	root, err := readValue(d)
	if err != nil {
		return invalid("the JSON schema is no JSON: %w", err)
	}
	w := converterWalk{ConverterCheck: c, root: root, refs: make(map[string]*converterRef), resolving: make(map[string]bool)}
	left, text := c.left, c.text
	w.spend(float64(root.finds) / 150)
	node := w.build(root, nil, 0)
	w.visit(node, "tool-"+tool+"-schema", 0)
	if w.err != nil { // the tool may be tried again in other words
		for _, name := range w.added {
			delete(c.rules, name)
		}
		c.left, c.text = left, text
	}
	return w.err
}

// jsonValue is JSON in a form in which members are found without reading the text again.
type jsonValue struct {
	kind  jsontext.Kind
	text  string // of a string
	names []string
	list  []*jsonValue // elements, or the members' values
	size  int          // bytes
	finds int          // of members, when the library reads them: it looks for each name among those before
}

func readValue(d *jsontext.Decoder) (*jsonValue, error) {
	from := d.InputOffset()
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	v := &jsonValue{kind: token.Kind()}
	switch v.kind {
	case '"':
		v.text = token.String()
	case '{', '[':
		for d.PeekKind() != '}' && d.PeekKind() != ']' {
			if v.kind == '{' {
				name, err := d.ReadToken()
				if err != nil {
					return nil, err
				}
				v.names = append(v.names, name.String())
			}
			part, err := readValue(d)
			if err != nil {
				return nil, err
			}
			v.list, v.finds = append(v.list, part), v.finds+part.finds
		}
		v.finds += len(v.names) * len(v.names) / 2
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
	}
	v.size = int(d.InputOffset() - from)
	return v, nil
}

// member is the value of an object's member, nil for none. Of several the last one counts.
func (v *jsonValue) member(name string) *jsonValue {
	for i := len(v.names) - 1; i >= 0; i-- {
		if v.names[i] == name {
			return v.list[i]
		}
	}
	return nil
}

func (v *jsonValue) isKind(kind jsontext.Kind) bool { return v != nil && v.kind == kind }

// converterNode is a node of the tree that the converter builds of a schema.
type converterNode struct {
	kind     nodeKind
	children []*converterNode // alternatives, items, the values of properties
	names    []string         // of properties
	required []bool
	rest     *converterNode // of an object: further properties; nil: none
	ref      *converterRef
	bytes    int // of constants and patterns
	groups   int // repetitions in a pattern
}

type nodeKind int

const (
	leafNode nodeKind = iota
	anyNode
	refNode
	anyOfNode
	allOfNode
	constantNode
	patternNode
	objectNode
	arrayNode
	tupleNode
)

type converterRef struct {
	name   string
	target *converterNode // nil while it is built
}

// converterWalk is the check of one tool. Its first error ends it.
type converterWalk struct {
	*ConverterCheck
	root      *jsonValue
	refs      map[string]*converterRef
	resolving map[string]bool
	added     []string
	err       error
}

func (w *converterWalk) spend(work float64) bool {
	if w.left -= work; w.left < 0 {
		w.fail("it takes more than %d steps to make a grammar of the tools up to this one; the steps grow with optional properties, types of a list, references and long names", converterWorkMax)
	}
	return w.err == nil
}

func (w *converterWalk) fail(format string, args ...any) {
	if w.err == nil {
		w.err = invalid(format, args...)
	}
}

func (w *converterWalk) enter(depth int) bool {
	if depth > converterDepthMax {
		w.fail("schemas are nested more than %d deep, references included, or an allOf leads back to itself", converterDepthMax)
	}
	return w.err == nil
}

// build is common_chat_schema_builder::build_node. asType is one entry of a list of types.
func (w *converterWalk) build(v, asType *jsonValue, depth int) *converterNode {
	node := &converterNode{}
	if !w.enter(depth) || !w.spend(3+float64(len(v.names))/10) || v.kind != '{' {
		return node
	}
	if ref := v.member("$ref"); ref != nil {
		return w.buildRef(ref, depth)
	}
	for _, key := range []string{"oneOf", "anyOf"} {
		if list := v.member(key); list != nil {
			node.kind, node.children = anyOfNode, w.buildEach(list, depth)
			return node
		}
	}
	kind := asType
	if kind == nil {
		kind = v.member("type")
	}
	if kind.isKind('[') {
		node.kind = anyOfNode
		for _, one := range kind.list {
			if w.spend(float64(v.size) / 20) {
				node.children = append(node.children, w.build(v, one, depth+1))
			}
		}
		return node
	}
	for _, key := range []string{"const", "enum"} {
		if value := v.member(key); value != nil {
			node.kind, node.bytes = constantNode, value.size
			return node
		}
	}
	more := v.member("additionalProperties")
	hasProperties := v.member("properties") != nil || more != nil && more.kind != 't'
	allOf, name := v.member("allOf"), ""
	if kind.isKind('"') {
		name = kind.text
	}
	switch {
	case name == "" && hasProperties, name == "object" && (hasProperties || allOf == nil):
		return w.buildObject(v, more, depth)
	case allOf != nil && (name == "" || name == "object" || name == "string"):
		node.kind, node.children = allOfNode, w.buildEach(allOf, depth)
	case name == "array", name == "" && (v.member("items") != nil || v.member("prefixItems") != nil):
		return w.buildArray(v, depth)
	case name == "string" || name == "":
		if pattern := v.member("pattern"); pattern.isKind('"') {
			node.kind, node.bytes, node.groups = patternNode, len(pattern.text), strings.Count(pattern.text, "{")
		} else if name == "" || v.member("minLength") != nil || v.member("maxLength") != nil || v.member("format") != nil {
			node.kind = anyNode
		}
	case name == "integer":
		node.kind = anyNode // with bounds it is a rule of its own
	}
	return node
}

func (w *converterWalk) buildEach(list *jsonValue, depth int) []*converterNode {
	if list.kind != '[' {
		return nil
	}
	var nodes []*converterNode
	for _, v := range list.list {
		if w.err != nil {
			break
		}
		nodes = append(nodes, w.build(v, nil, depth+1))
	}
	return nodes
}

func (w *converterWalk) buildRef(to *jsonValue, depth int) *converterNode {
	if !w.checkName("a $ref", to.text) || !strings.HasPrefix(to.text, "#/") {
		return &converterNode{}
	}
	ref := w.refs[to.text]
	if ref == nil {
		ref = &converterRef{name: to.text}
		w.refs[to.text] = ref
		target := w.resolve(to.text)
		if target == nil {
			return &converterNode{}
		}
		ref.target = w.build(target, nil, depth+1)
	}
	return &converterNode{kind: refNode, ref: ref}
}

// resolve finds what a reference leads to; nil: nothing.
func (w *converterWalk) resolve(ref string) *jsonValue {
	at := w.root
	for _, step := range strings.Split(ref[2:], "/") {
		switch at.kind {
		case '{':
			w.spend(float64(len(at.names)) / 50)
			at = at.member(step)
		case '[': // the converter takes a number at the beginning
			digits := strings.TrimLeft(step, " \t\n\v\f\r+-")
			end := 0
			for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
				end++
			}
			i, err := strconv.Atoi(digits[:end])
			if err != nil || i >= len(at.list) {
				return nil
			}
			at = at.list[i]
		default:
			return nil
		}
		if at == nil {
			return nil
		}
	}
	return at
}

func (w *converterWalk) buildObject(v, more *jsonValue, depth int) *converterNode {
	node := &converterNode{kind: objectNode}
	required := make(map[string]bool)
	if list := v.member("required"); list.isKind('[') {
		for _, name := range list.list {
			required[name.text] = true
		}
	}
	if p := v.member("properties"); p.isKind('{') {
		if len(p.names) > converterPropertiesMax {
			w.fail("an object has %d properties, at most %d are allowed", len(p.names), converterPropertiesMax)
		}
		for i, name := range p.names {
			if !w.checkName("the name of a property", name) {
				return node
			}
			node.names, node.required = append(node.names, name), append(node.required, required[name])
			node.children = append(node.children, w.build(p.list[i], nil, depth+1))
		}
	} else if more == nil {
		node.rest = &converterNode{kind: anyNode}
	}
	switch {
	case more.isKind('t'):
		node.rest = &converterNode{kind: anyNode}
	case more.isKind('{'):
		node.rest = w.build(more, nil, depth+1)
	}
	return node
}

func (w *converterWalk) buildArray(v *jsonValue, depth int) *converterNode {
	items := v.member("items")
	if items == nil {
		items = v.member("prefixItems")
	}
	switch {
	case items == nil:
		return &converterNode{kind: arrayNode, children: []*converterNode{{kind: anyNode}}}
	case items.kind == '[':
		return &converterNode{kind: tupleNode, children: w.buildEach(items, depth)}
	}
	return &converterNode{kind: arrayNode, children: []*converterNode{w.build(items, nil, depth+1)}}
}

func (w *converterWalk) checkName(what, name string) bool {
	if len(name) > converterNameMax {
		w.fail("%s has %d bytes, at most %d are allowed", what, len(name), converterNameMax)
	}
	return w.err == nil
}

// visit is common_chat_schema_converter::visit; name is that of the node's rule.
func (w *converterWalk) visit(n *converterNode, name string, depth int) {
	if !w.enter(depth) || !w.spend(5+float64(len(name))/20) {
		return
	}
	switch n.kind {
	case leafNode: // a rule that all nodes of a type share
		return
	case refNode:
		w.visitRef(n.ref, depth)
	case anyOfNode:
		for i, child := range n.children {
			w.visit(child, name+"-"+strconv.Itoa(i), depth+1)
		}
	case allOfNode:
		w.visitAllOf(n, name, depth)
	case constantNode:
		w.spend(float64(n.bytes) / 8)
		w.text += n.bytes
	case patternNode:
		w.visitPattern(n, name)
	case objectNode:
		w.visitObject(n, name, depth)
	case arrayNode:
		w.findTypes(n.children[0])
		w.visit(n.children[0], name+"-item", depth+1)
	case tupleNode:
		for i, child := range n.children {
			w.visit(child, name+"-tuple-"+strconv.Itoa(i), depth+1)
		}
	}
	w.rule(name, 1)
}

func (w *converterWalk) visitRef(ref *converterRef, depth int) {
	name := "ref" + converterRule(ref.name[1:])
	if ref.target == nil || w.resolving[ref.name] {
		return
	}
	if _, known := w.rules[name]; known {
		if ref.target.kind == patternNode { // one that is no pattern has no rule, so it is tried again
			w.visitPattern(ref.target, name)
		}
		return
	}
	w.resolving[ref.name] = true
	w.visit(ref.target, name, depth+1)
	delete(w.resolving, ref.name)
}

// visitAllOf puts the properties of all parts into one object, those behind references as if they stood here.
func (w *converterWalk) visitAllOf(n *converterNode, name string, depth int) {
	whole := &converterNode{kind: objectNode}
	var add func(part *converterNode, required bool, depth int)
	add = func(part *converterNode, required bool, depth int) {
		if part == nil || !w.enter(depth) || !w.spend(1) {
			return
		}
		switch part.kind {
		case refNode:
			add(part.ref.target, required, depth+1)
		case objectNode:
			whole.children, whole.names = append(whole.children, part.children...), append(whole.names, part.names...)
			for range part.names {
				whole.required = append(whole.required, required)
			}
		case constantNode:
			w.spend(float64(part.bytes) / 8)
		}
	}
	for _, child := range n.children {
		if child.kind != anyOfNode {
			add(child, true, depth+1)
			continue
		}
		for _, part := range child.children {
			add(part, false, depth+1)
		}
	}
	if len(whole.names) > converterPropertiesMax {
		w.fail("an allOf has %d properties, at most %d are allowed", len(whole.names), converterPropertiesMax)
		return
	}
	w.visitObject(whole, name, depth)
}

// visitPattern: all rules are copied before a pattern is tried.
func (w *converterWalk) visitPattern(n *converterNode, name string) {
	size := float64(n.bytes)
	w.spend(size + size*size/15_000 + float64(len(w.rules))/10 + float64(w.text)/10_000)
	w.text += n.bytes
	for i := 0; i < n.groups && w.err == nil; i++ {
		w.rule(name+"-"+strconv.Itoa(i), 1)
	}
}

func (w *converterWalk) visitObject(n *converterNode, name string, depth int) {
	var optional []string
	total := 0
	for i, property := range n.names {
		at := name + "-" + property
		w.findTypes(n.children[i])
		w.visit(n.children[i], at, depth+1)
		w.rule(at+"-kv", 1)
		if total += len(property); !n.required[i] {
			optional = append(optional, at)
		}
		if w.err != nil {
			return
		}
	}
	if n.rest != nil {
		w.spend(float64(total) / 3)
		w.visit(n.rest, name+"-additional-value", depth+1)
		w.rule(name+"-additional-k", 1)
		w.rule(name+"-additional-kv", 1)
		optional = append(optional, name+"-*")
	}
	count := float64(len(optional))
	w.spend(count * count * count / 600)
	for i := range max(0, len(optional)-1) {
		w.rule(optional[i]+"-rest", float64(i+1))
	}
}

// findTypes is value_types and may_be_string, which follow each reference each time.
func (w *converterWalk) findTypes(n *converterNode) {
	following := make(map[*converterRef]bool)
	var find func(n *converterNode)
	find = func(n *converterNode) {
		switch {
		case n == nil || w.err != nil || !w.spend(1):
		case n.kind == refNode && !following[n.ref]:
			following[n.ref] = true
			find(n.ref.target)
			delete(following, n.ref)
		case n.kind == anyOfNode || n.kind == allOfNode:
			for _, child := range n.children {
				find(child)
			}
		}
	}
	find(n)
}

// rule is _add_rule, which is called times with the same rule: of equal names the later ones get the first number that
// is free.
func (w *converterWalk) rule(name string, times float64) {
	name = converterRule(name)
	if !w.spend(times * (0.3 + float64(len(name))/20)) {
		return
	}
	free := name
	for i := 0; ; i++ {
		if _, taken := w.rules[free]; !taken {
			break
		}
		if !w.spend(times * 0.3) {
			return
		}
		free = name + strconv.Itoa(i)
	}
	w.rules[free] = struct{}{}
	w.added = append(w.added, free)
	w.text += 3 * len(free)
}

// converterRule puts a hyphen in the place of what can't be in a rule's name.
func converterRule(name string) string {
	out := make([]byte, 0, len(name))
	for i := range len(name) {
		switch c := name[i]; {
		case !isReplaced(c):
			out = append(out, c)
		case i == 0 || !isReplaced(name[i-1]):
			out = append(out, '-')
		}
	}
	return string(out)
}

func isReplaced(c byte) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-')
}
