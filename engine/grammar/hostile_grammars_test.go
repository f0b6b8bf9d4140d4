//go:build llama

package grammar

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What each hostile grammar may take, compiled and followed for a while. That is far above what they do take; without
// bounds some take all there is. Times are of the processor: what else the machine does doesn't count.
const (
	hostileTime    = 20 * time.Second // the race detector included
	hostileMemory  = 1 << 30
	hostileCompile = 5 * time.Second        // the same
	hostileBudget  = 250 * time.Millisecond // the engine's default for one token
)

// numbered repeats a text, with $i and $j become 0 and 1, then 1 and 2, and so on.
func numbered(n int, text string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = strings.NewReplacer("$i", strconv.Itoa(i), "$j", strconv.Itoa(i+1)).Replace(text)
	}
	return strings.Join(list, ",")
}

// chained is n schemas, each a reference to the next, in objects of at most 900 members.
func chained(n int) string {
	var out strings.Builder
	for i := range n {
		switch {
		case i == 0:
			out.WriteString(`"x0":{`)
		case i%900 == 0:
			fmt.Fprintf(&out, `},"x%d":{`, i/900)
		default:
			out.WriteByte(',')
		}
		if i == n-1 {
			fmt.Fprintf(&out, `"%d":{"type":"null"}}`, i)
			break
		}
		fmt.Fprintf(&out, `"%d":{"$ref":"#/x%d/%d"}`, i, (i+1)/900, i+1)
	}
	return out.String()
}

func hostile() map[string]Source {
	list := map[string]Source{
		"ambiguous pattern":     {Regex, `(a?){500}b`},
		"nested repetition":     {Regex, `((a{1,300}){1,300}){1,300}`},
		"huge repetition":       {Regex, `(ab|cd|e){1,1000000}`},
		"product of classes":    {Regex, `.*[a-z].{200}[0-9].{200}x`},
		"intersection":          {Lark, "start: /[^a]*a[^b]{300}/ & /.*c.{250}/"},
		"ambiguous rules":       {Lark, "start: start start | \"a\" | \"\""},
		"recursive rules":       {GBNF, "root ::= x x x\nx ::= \"a\"* y*\ny ::= \"a\"* x?"},
		"ambiguous GBNF":        {GBNF, `root ::= ("a"?){500} "b"`},
		"nested GBNF":           {GBNF, `root ::= (("a"{1,2000}){1,2000}){1,2000}`},
		"left recursion":        {GBNF, `root ::= root "a" | root root | ""`},
		"hundred thousand":      {GBNF, "root ::= " + strings.Repeat(`"a"? `, 40_000) + `"b"`},
		"words that share much": {GBNF, "root ::= " + strings.Repeat(`("abc" | "abd") `, 10_000)},
	}
	for name, schema := range map[string]string{
		"part of itself":              `{"$defs":{"a":{"$ref":"#/$defs/a"}},"allOf":[{"$ref":"#/$defs/a"}]}`,
		"reference to the root":       `{"allOf":[{"$ref":"#"},{"properties":{"a":{"$ref":"#"}}}]}`,
		"long name":                   `{"properties":{"` + strings.Repeat("a", 60_000) + `":{}},"additionalProperties":{"type":"string"}}`,
		"many optional properties":    `{"type":"object","properties":{` + numbered(3200, `"$i":{}`) + `}}`,
		"many parts of a whole":       `{"allOf":[` + numbered(1000, `{"anyOf":[{"properties":{"$i":{}}}]}`) + `]}`,
		"parts that multiply":         `{"allOf":[` + numbered(30, `{"anyOf":[{"properties":{"a$i":{"type":"string"}}},{"properties":{"b$i":{"type":"integer"}}}]}`) + `]}`,
		"properties many times":       `{"$defs":{"a":{"properties":{` + numbered(200, `"$i":{}`) + `}}},"allOf":[{"anyOf":[` + numbered(1000, `{"$ref":"#/$defs/a","x":$i}`) + `]}]}`,
		"types that multiply":         strings.Repeat(`{"type":["object","object"],"properties":{"a":`, 30) + "{}" + strings.Repeat("}}", 30),
		"references that multiply":    `{"$ref":"#/$defs/0","$defs":{"60":{},` + numbered(60, `"$i":{"properties":{"x":{"allOf":[{"$ref":"#/$defs/$j"},{"$ref":"#/$defs/$j"}]}}}`) + `}}`,
		"references thousands deep":   `{"$ref":"#/$defs/0","$defs":{"2000":{},` + numbered(2000, `"$i":{"$ref":"#/$defs/$j"}`) + `}}`,
		"siblings thousands deep":     `{"$ref":"#/$defs/0","$defs":{"2000":{},` + numbered(2000, `"$i":{"$ref":"#/$defs/$j","type":"object"}`) + `}}`,
		"lists of lists":              strings.Repeat(`{"type":"array","minItems":100,"maxItems":100000,"items":`, 30) + `{"type":"string"}` + strings.Repeat("}", 30),
		"long strings":                `{"type":"string","minLength":100000,"maxLength":10000000}`,
		"many items":                  `{"type":"array","items":{"type":"integer"},"minItems":1000000,"maxItems":100000000}`,
		"long enumeration":            `{"enum":[` + numbered(8000, `"value $i of many"`) + `]}`,
		"long list of types":          `{"type":[` + numbered(6000, `"null"`) + `]}`,
		"patterns of names":           `{"patternProperties":{` + numbered(60, `"^(a|b)*[a-z]{$i}c.*$j$":{"type":"null"}`) + `},"additionalProperties":false}`,
		"large numbers":               `{"type":"number","minimum":1e-300,"maximum":1e300,"multipleOf":1e-200}`,
		"multiple of any type":        `{"multipleOf":982451653}`,
		"multiple, escaped":           `{"multiple\u004ff":982451653}`,
		"multiple elsewhere":          `{"$ref":"#/x","x":{"multipleOf":982451653}}`,
		"multiples and alternatives":  `{"multipleOf":9973,"anyOf":[{"multipleOf":9967}]}`,
		"multiples and zero":          `{"$defs":{"z":{"multipleOf":0}},"allOf":[{"multipleOf":9973},{"multipleOf":9967}]}`,
		"multiples, many decimals":    `{"allOf":[{"multipleOf":0.0000001},{"multipleOf":5000}]}`,
		"chain of references":         `{"$ref":"#/x0/0",` + chained(950) + `}`,
		"long chain of references":    `{"$ref":"#/x0/0",` + chained(2800) + `}`,
		"chain with siblings":         `{"$ref":"#/x0/0","type":"object",` + strings.ReplaceAll(chained(950), `{"$ref"`, `{"type":"object","$ref"`) + `}`,
		"required by the thousand":    `{"type":"object","required":[` + numbered(11_000, `"a$i"`) + `]}`,
		"required by the hundred":     `{"type":"object","required":[` + numbered(1000, `"a$i"`) + `]}`,
		"multiples together":          `{"allOf":[{"multipleOf":97},{"multipleOf":101},{"multipleOf":103},{"multipleOf":107}]}`,
		"multiples by reference":      `{"$defs":{"a":{"multipleOf":9973}},"$ref":"#/$defs/a","multipleOf":9967}`,
		"multiples":                   `{"type":"integer","multipleOf":982451653}`,
		"pattern, ambiguous":          `{"type":"string","pattern":"^(a?){500}b$"}`,
		"pattern, nested":             `{"type":"string","pattern":"^((a{1,300}){1,300}){1,300}$"}`,
		"pattern and length":          `{"type":"string","pattern":"^(.*[a-z].{100}){3}$","maxLength":5000}`,
		"pattern with a large class":  `{"type":"string","pattern":"^(\\p{L}|\\p{N}|[^\\p{L}]){1000}x$"}`,
		"maximum below minimum":       `{"type":"string","minLength":10,"maxLength":5}`,
		"fewest above most":           `{"type":"array","minItems":4,"maxItems":2}`,
		"pattern, maximum below":      `{"type":"string","pattern":"^a{2,1}$"}`,
		"properties, fewest and most": `{"type":"object","minProperties":3,"maxProperties":2}`,
	} {
		list[name] = Source{JSONSchema, schema}
	}
	return list
}

// Whatever a client sends, it is refused or followed within bounds of time and memory.
func TestHostileGrammars(t *testing.T) {
	v, end := bytesVocabulary(t, "aaaa", "ab", `{"`, `":`, `","`, "    ", "0000", "the", " and")
	for name, s := range hostile() {
		t.Run(name, func(t *testing.T) {
			before, began := residentBytes(t), processorTime(t)
			end := follow(t, v, s, end)
			took, grown := processorTime(t)-began, residentBytes(t)-before
			t.Logf("%s after %s, %d MiB", end, took.Round(time.Millisecond), grown>>20)
			if took > hostileTime || grown > hostileMemory {
				t.Errorf("%s and %d MiB, at most %s and %d MiB are allowed", took, grown>>20, hostileTime, hostileMemory>>20)
			}
		})
	}
}

// The time that multipleOf takes grows with how often it is there, not with the square of that.
func TestManyMultiples(t *testing.T) {
	text := `{"type":"integer","examples":[` + numbered(3800, `{"multipleOf":1}`) + `]}`
	began := processorTime(t)
	if _, err := prepareSchema(text); err != nil {
		t.Fatal(err)
	}
	if took := processorTime(t) - began; took > 500*time.Millisecond {
		t.Errorf("a schema of %d bytes took %s", len(text), took)
	}
}

// processorTime is what this process has taken.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// follow compiles a grammar and accepts up to a hundred tokens, in turn the first, the last and some other that it
// allows.
func follow(t testing.TB, v *Vocabulary, s Source, end int32) string {
	began := processorTime(t)
	m, err := v.NewMatcher(s)
	if took := processorTime(t) - began; took > hostileCompile {
		t.Errorf("compiling takes %s", took)
	}
	if err != nil {
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooComplex) {
			t.Errorf("compile: %v", err)
		}
		return fmt.Sprintf("refused (%.120s)", err)
	}
	defer m.Close()
	words := make([]uint32, m.MaskWords())
	for step := range 100 {
		if m.Ended() {
			return "ended"
		}
		if err := m.Mask(words, hostileBudget); err != nil {
			if !errors.Is(err, ErrTooComplex) && step > 0 {
				t.Errorf("mask %d: %v", step, err)
			}
			return fmt.Sprintf("given up at token %d (%.120s)", step, err)
		}
		var may []int32
		for id := range end {
			if allowed(words, id) {
				may = append(may, id)
			}
		}
		if len(may) == 0 {
			return "ended"
		}
		if err := m.Accept(may[[]int{0, len(may) - 1, step * 7919 % len(may)}[step%3]], hostileBudget); err != nil {
			if !errors.Is(err, ErrTooComplex) {
				t.Errorf("accept %d: %v", step, err)
			}
			return fmt.Sprintf("given up at token %d (%.120s)", step, err)
		}
	}
	return "followed"
}

func residentBytes(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc here")
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func FuzzSchemaIsRefusedOrFollowed(f *testing.F) {
	for _, s := range hostile() {
		if s.Kind == JSONSchema && len(s.Text) < 4096 {
			f.Add(s.Text)
		}
	}
	f.Add(`{"type":"object","properties":{"a":{"type":["string","null"],"pattern":"^a+$"}},"required":["a"],"additionalProperties":false}`)
	v, end := bytesVocabulary(f, "aaaa", "ab", `{"`, `":`, `","`)
	f.Fuzz(func(t *testing.T, schema string) {
		watchdog := time.AfterFunc(hostileTime, func() { panic(schema) }) // the fuzzer knows no time limit
		defer watchdog.Stop()
		follow(t, v, Source{JSONSchema, schema}, end)
	})
}
