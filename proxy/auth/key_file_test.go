package auth

import (
	"strings"
	"testing"
)

func TestParseFileNamesEveryMistake(t *testing.T) {
	f := func(name, content string, parts ...string) {
		t.Helper()
		_, err := parseFile([]byte(content), parseTestRate)
		if err == nil {
			t.Errorf("%s was accepted", name)
			return
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is not in:\n%v", name, part, err)
			}
		}
	}
	sum := strings.Repeat("ab", 32)
	f("empty file", "", "is empty")
	f("comments only", "# nothing\n", "is empty")
	f("no YAML", "keys: [", "not valid YAML")
	f("a list", "- name: a\n", "line 1: want keys:")
	f("no keys", "{}\n", "keys is missing")
	f("null keys", "keys:\n", "line 1: keys must be a list")
	f("other fields", "keys: []\nother: 1\n", `line 2: unknown field "other"`)
	f("two documents", "keys: []\n---\nkeys: []\n", "more than one YAML document")
	f("broken second document", "keys: []\n---\nkeys: [\n", "more than one YAML document")
	f("keys twice", "keys: []\nkeys: []\n", `line 2: the file has the field "keys" twice`)
	f("an entry that is text", "keys:\n  - hello\n", "line 2: want an entry")
	f("an alias", "keys:\n  - &a {name: a, sha256: "+sum+"}\n  - *a\n", "line 3: want an entry")
	f("many at once", `keys:
  - name: a b
    sha256: xyz
    domain: ""
    rate_limit: often
    models: []
    expires: tomorrow
    enabled: maybe
    colour: red
    colour: blue
    weight: 0
    concurrency: -1
    tokens_per_minute: 1.5
  - sha256: `+sum+`
  - name: ok
    models: [x, null]
`, "line 2: name: ", "line 3: sha256: want the 64", "line 4: domain: ", "line 5: rate_limit: rate", "line 6: models: ", "line 7: expires: ",
		"line 8: enabled: ", "line 9: colour: unknown field", `line 10: the entry has the field "colour" twice`, "line 11: weight: ", "line 12: concurrency: ", "line 13: tokens_per_minute: ",
		"line 14: the entry has no name", "line 15: the entry has no sha256", "line 16 is no model name")
	f("null fields", "keys:\n  - name: ~\n    sha256:\n", "line 2: name: want one value", "line 3: sha256: want one value")
	f("names twice", "keys:\n"+keyEntry("a", "1")+keyEntry("a", "2"), `line 4: name "a" is taken in line 2`)
	f("secrets twice", "keys:\n"+keyEntry("a", "1")+keyEntry("b", "1"), `line 4: the key of "b" is the same as the one in line 2`)
	f("a long name", "keys:\n"+keyEntry(strings.Repeat("n", 65), "1"), "want 1 to 64 bytes")
	f("a huge file", strings.Repeat("#", MaxFileBytes+1), "more than")
	_, err := parseFile([]byte("keys:\n"+strings.Repeat("  - {}\n", 1000)), parseTestRate)
	if err == nil || strings.Count(err.Error(), "\n") > maxProblems {
		t.Errorf("the mistakes aren't bounded: %d lines", strings.Count(err.Error(), "\n"))
	}
}

func TestSharesAndLimitsOfAKey(t *testing.T) {
	entries, err := parseFile([]byte("keys:\n"+keyEntry("a", "1", "weight: 2.5", "concurrency: 4", "tokens_per_minute: 20000")+keyEntry("b", "2")), parseTestRate)
	if err != nil || entries[0].Weight != 2.5 || entries[0].Concurrency != 4 || entries[0].TokensPerMinute != 20000 {
		t.Errorf("%+v, %v", entries, err)
	}
	if b := entries[1]; b.Weight != 0 || b.Concurrency != 0 || b.TokensPerMinute != 0 {
		t.Errorf("without the fields: %+v", b)
	}
}

// A hash may look like a number to YAML.
func TestHashesThatLookLikeNumbers(t *testing.T) {
	for _, sum := range []string{strings.Repeat("1", 64), strings.Repeat("1", 30) + "e" + strings.Repeat("2", 33), "0x" + strings.Repeat("0", 62)} {
		entries, err := parseFile([]byte("keys: [{name: 007, sha256: "+sum+"}]"), parseTestRate)
		if strings.Contains(sum, "x") {
			if err == nil {
				t.Errorf("%s was accepted", sum)
			}
			continue
		}
		if err != nil || entries[0].Name != "007" || entries[0].digest[0] != 0x11 {
			t.Errorf("%s: %+v, %v", sum, entries, err)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("keys:\n" + keyEntry("a", "1", "domain: legal", "rate_limit: 7/minute", "models: [demo]", "expires: 2027-06-01", "enabled: true"))
	f.Add("keys: []\n---\n")
	f.Add("keys:\n  - &a {name: a, sha256: *a, <<: *a}\n")
	f.Add("{}")
	f.Add("- !!binary aGVsbG8=\n- ? [a]\n  : b\n")
	f.Fuzz(func(t *testing.T, content string) {
		entries, err := parseFile([]byte(content), parseTestRate)
		if err != nil {
			return
		}
		if _, err := newKeySet(nil, entries); err != nil {
			t.Fatalf("accepted, but not as a set: %v", err)
		}
		for _, e := range entries {
			if checkName(e.Name) != nil || e.Models != nil && len(e.Models) == 0 {
				t.Fatalf("%+v", e)
			}
		}
	})
}
