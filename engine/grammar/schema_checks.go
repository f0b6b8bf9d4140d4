package grammar

import (
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Here schemas are refused that the library would silently get wrong, or for which it has no bound.

const (
	commonMultipleMax = 20_000 // common multiple of all multipleOf, in units of their last decimal
	decimalsMax       = 6      // of a multipleOf
	referencesMax     = 1000
	exactIntegerMax   = 1 << 53 // the library reads numbers as float64
)

var (
	// applicators are processed one after another, and what is between them separately from the rest.
	applicators = []string{"const", "enum", "allOf", "anyOf", "oneOf", "$ref"}
	// newerKeywords would be ignored in a schema that says it is of an older draft.
	newerKeywords = []string{"if", "then", "else", "contains", "minContains", "maxContains", "propertyNames", "dependentRequired", "dependentSchemas",
		"unevaluatedItems", "unevaluatedProperties"}
)

// checkSupported checks every object of the text, wherever it is: a reference may make a schema of any. Lenient: what
// the library merely leaves out is no error.
func checkSupported(text string, lenient bool) error {
	var c schemaCheck
	if err := c.value(jsontext.Value(text), nil); err != nil {
		return err
	}
	if c.references > referencesMax {
		return invalid("the JSON schema has %d references, at most %d are allowed", c.references, referencesMax)
	}
	all := keywords(jsontext.Value(text), nil)
	var newer []string
	for _, k := range all {
		if !lenient && slices.Contains(newerKeywords, k.name) && !slices.Contains(newer, k.name) {
			newer = append(newer, k.name)
		}
		if k.name == "const" || k.name == "enum" {
			if err := checkExactIntegers(k); err != nil {
				return err
			}
		}
	}
	if len(newer) > 0 {
		return unsupported(all, newer)
	}
	return nil
}

// schemaCheck is one walk through a schema.
type schemaCheck struct {
	references int
	unit       big.Int // 1 / unit is a decimal place that no multipleOf so far goes beyond; 0: there was none
	common     big.Int // their least common multiple, in that unit
}

func (c *schemaCheck) value(v jsontext.Value, at *pathStep) error {
	switch v.Kind() {
	case '{':
		return c.object(membersOf(v), at)
	case '[':
		for i, part := range elementsOf(v) {
			if kind := part.Kind(); kind == '{' || kind == '[' {
				if err := c.value(part, &pathStep{at, strconv.Itoa(i)}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *schemaCheck) object(members []member, at *pathStep) error {
	if err := checkKeywordPairs(members, at); err != nil {
		return err
	}
	identified := at != nil && slices.ContainsFunc(members, func(m member) bool { return m.name == "$id" })
	for _, m := range members {
		k := keyword{m.name, m.value, at}
		var err error
		switch kind := m.value.Kind(); {
		case m.name == "multipleOf" && kind == '0':
			err = c.checkMultipleOf(k)
		case m.name == "$ref" && kind == '"':
			c.references++
			if identified && !strings.HasPrefix(string(m.value), `"#`) { // drafts differ about what it is relative to
				err = invalid("JSON schema: $ref at %s stands beside an $id; leave that out", k.path())
			}
		case m.name == "required" && kind == '[' && len(elementsOf(m.value)) > membersMax:
			err = invalid("JSON schema: required at %s has more than %d names", k.path(), membersMax)
		}
		if err == nil {
			err = c.value(m.value, &pathStep{at, m.name})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMultipleOf refuses a multipleOf that has, together with the others, many remainders: a grammar has a state for
// each, and the library has no bound on them.
func (c *schemaCheck) checkMultipleOf(k keyword) error {
	tooMuch := func() error {
		return invalid("JSON schema: multipleOf at %s: %s is no number above 0 with few digits (alone and together with the others)", k.path(), k.value)
	}
	if len(k.value) > 32 || strings.ContainsAny(string(k.value), "eE") {
		return tooMuch()
	}
	x, ok := new(big.Rat).SetString(string(k.value))
	if !ok || x.Sign() <= 0 {
		return tooMuch()
	}
	_, decimals, _ := strings.Cut(strings.TrimRight(string(k.value), "0"), ".")
	if strings.Contains(string(k.value), ".") && len(decimals) > decimalsMax {
		return tooMuch()
	}
	if n := c.commonMultipleWith(x); !n.IsInt64() || n.Int64() > commonMultipleMax {
		return tooMuch()
	}
	return nil
}

// commonMultipleWith takes a further multipleOf and returns the least common multiple of all, in units of the last
// decimal that any of them has.
func (c *schemaCheck) commonMultipleWith(x *big.Rat) *big.Int {
	first := c.unit.Sign() == 0
	if first {
		c.unit.SetInt64(1)
	}
	for new(big.Int).Mod(&c.unit, x.Denom()).Sign() != 0 { // denominators of decimals divide a power of ten
		c.unit.Mul(&c.unit, big.NewInt(10))
		c.common.Mul(&c.common, big.NewInt(10))
	}
	n := new(big.Int).Mul(x.Num(), new(big.Int).Div(&c.unit, x.Denom()))
	if first {
		return c.common.Set(n)
	}
	gcd := new(big.Int).GCD(nil, nil, &c.common, n)
	return c.common.Mul(&c.common, n.Div(n, gcd))
}

// checkKeywordPairs refuses pairs of keywords of which the library would lose one.
func checkKeywordPairs(members []member, at *pathStep) error {
	place := func(name string) int { return slices.IndexFunc(members, func(m member) bool { return m.name == name }) }
	apart := func(a, b string) bool { // an applicator stands between them
		i, k := place(a), place(b)
		if i < 0 || k < 0 {
			return false
		}
		return slices.ContainsFunc(members[min(i, k):max(i, k)], func(m member) bool { return slices.Contains(applicators, m.name) })
	}
	listed := place("items") >= 0 && members[place("items")].value.Kind() == '['
	if place("prefixItems") >= 0 && (place("additionalItems") >= 0 || listed) {
		return invalid("JSON schema: prefixItems at %s stands beside additionalItems or a list of items, which an older draft has in its place", keyword{name: "prefixItems", parent: at}.path())
	}
	for _, pair := range [][2]string{{"items", "additionalItems"}, {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}} {
		if apart(pair[0], pair[1]) {
			return invalid("JSON schema: put %s at %s beside %s", pair[1], keyword{name: pair[1], parent: at}.path(), pair[0])
		}
	}
	return nil
}

// checkExactIntegers refuses whole numbers that the library would round to others.
func checkExactIntegers(k keyword) error {
	d := jsontext.NewDecoder(strings.NewReader(string(k.value)))
	for {
		token, err := d.ReadToken()
		if err != nil { // the end: the text has been checked
			return nil
		}
		if token.Kind() != '0' {
			continue
		}
		n, ok := new(big.Int).SetString(token.String(), 10)
		if ok && n.CmpAbs(big.NewInt(exactIntegerMax)) > 0 {
			return invalid("JSON schema: %s at %s: %s is too large to be kept exactly; make it a string", k.name, k.path(), n)
		}
	}
}
