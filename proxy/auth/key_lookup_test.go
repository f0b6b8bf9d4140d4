package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// parseTestRate reads only N/minute, which is all that these tests need of limit.ParseRate.
func parseTestRate(s string) (Rate, error) {
	count, _ := strings.CutSuffix(s, "/minute")
	n, err := strconv.Atoi(count)
	if err != nil {
		return Rate{}, fmt.Errorf("rate %q: want N/minute", s)
	}
	return Rate{n, time.Minute}, nil
}

func keyEntry(name, secret string, more ...string) string {
	return strings.Join(append([]string{"  - name: " + name, "sha256: " + hashHex(secret)}, more...), "\n    ") + "\n"
}

func writeKeyFile(t *testing.T, path, content string) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func openKeyFile(t *testing.T, content string) *Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	writeKeyFile(t, path, content)
	k, err := Open(Options{File: path, ParseRate: parseTestRate})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var now = time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)

func TestLookup(t *testing.T) {
	k := openKeyFile(t, "keys:\n"+keyEntry("plain", "s-plain")+keyEntry("off", "s-off", "enabled: false")+
		keyEntry("old", "s-old", "expires: 2027-06-01")+keyEntry("new", "s-new", "expires: 2027-06-01T00:00:01Z")+
		keyEntry("full", "s-full", "domain: legal", "rate_limit: 7/minute", "models: [demo, org/name]", "enabled: true"))
	for presented, want := range map[string]Outcome{
		"s-plain": OK, "s-new": OK, "s-full": OK, "s-off": Disabled, "s-old": Expired, "": Missing, "S-PLAIN": Unknown, "s-plain ": Unknown,
		hashHex("s-plain"): Unknown, strings.Repeat("x", MaxSecretBytes): Unknown, strings.Repeat("x", MaxSecretBytes+1): TooLong,
	} {
		key, got := k.Lookup(presented, now)
		if got != want || (key != nil) != (want == OK) {
			t.Errorf("%q: %v, %v", presented, got, key)
		}
	}
	plain, _ := k.Lookup("s-plain", now)
	if plain.Name != "plain" || plain.Rate != nil || plain.Domain != "" || !plain.MayUse("anything") {
		t.Errorf("%+v", plain)
	}
	full, _ := k.Lookup("s-full", now)
	if full.Domain != "legal" || *full.Rate != (Rate{7, time.Minute}) || !full.MayUse("org/name") || full.MayUse("other") {
		t.Errorf("%+v", full)
	}
	if k.Len() != 5 || strings.Join(k.Domains(), " ") != "legal" {
		t.Errorf("%d keys, domains %v", k.Len(), k.Domains())
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	k := openKeyFile(t, "keys:\n"+keyEntry("a", "secret"))
	if n := testing.AllocsPerRun(100, func() { k.Lookup("secret", now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeysFromTheVariable(t *testing.T) {
	k, err := Open(Options{List: "ci:s1, demo:demo-key,with-colon:a:b,"})
	if err != nil {
		t.Fatal(err)
	}
	for secret, name := range map[string]string{"s1": "ci", "demo-key": "demo", "a:b": "with-colon"} {
		if key, outcome := k.Lookup(secret, now); outcome != OK || key.Name != name {
			t.Errorf("%s: %v %v", secret, key, outcome)
		}
	}
	_, err = Open(Options{List: "TOPSECRET1,a b:TOPSECRET2,c:,d:TOPSECRET3,d:TOPSECRET4,e:TOPSECRET3"})
	if err == nil || strings.Contains(err.Error(), "TOPSECRET") {
		t.Fatalf("an error with secrets, or none: %v", err)
	}
	for _, part := range []string{"entry 1", "entry 2", "entry 3", `name "d" is taken`, `the key of "e" is the same`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.yaml")
	writeKeyFile(t, path, "keys:\n"+keyEntry("ci", "other"))
	if _, err := Open(Options{}); !errors.Is(err, ErrNoKeys) {
		t.Errorf("nothing configured: %v", err)
	}
	if _, err := Open(Options{File: filepath.Join(dir, "absent")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(Options{File: dir}); err == nil {
		t.Error("a directory was read as keys")
	}
	if _, err := Open(Options{File: path, List: "ci:secret", ParseRate: parseTestRate}); err == nil || !strings.Contains(err.Error(), "in API_KEYS") {
		t.Errorf("one name in both places: %v", err)
	}
	writeKeyFile(t, path, "keys: []\n")
	if _, err := Open(Options{File: path}); !errors.Is(err, ErrNoKeys) {
		t.Errorf("a file without keys: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	long := strings.Repeat("x", MaxSecretBytes+1)
	for _, c := range []struct {
		rule, header, authorization, want string
		outcome                           Outcome
	}{
		{"nothing", "", "", "", Missing},
		{"the key header", "k", "", "k", OK},
		{"spaces around it", " k\t", "", "k", OK},
		{"bearer", "", "Bearer k", "k", OK},
		{"the scheme has no case", "", "bEARER   k ", "k", OK},
		{"both the same", "k", "Bearer k", "k", OK},
		{"both, different", "k", "Bearer l", "", Ambiguous},
		{"another scheme is not ours", "k", "Basic abc", "k", OK},
		{"another scheme alone", "", "Basic abc", "", Missing},
		{"bearer without a token", "", "Bearer ", "", Missing},
		{"a token without a scheme", "", "k", "", Missing},
		{"too long", long, "", "", TooLong},
		{"too long as bearer", "", "Bearer " + long, "", TooLong},
		{"the longest", long[1:], "", long[1:], OK},
	} {
		got, outcome := Credentials(c.header, c.authorization)
		if got != c.want || outcome != c.outcome {
			t.Errorf("%s: %q, %v", c.rule, got, outcome)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	var list []string
	for i := range 1000 {
		list = append(list, fmt.Sprintf("key%d:tandem_%040d", i, i))
	}
	k, err := Open(Options{List: strings.Join(list, ",")})
	if err != nil {
		b.Fatal(err)
	}
	presented := fmt.Sprintf("tandem_%040d", 500)
	b.ReportAllocs()
	for b.Loop() {
		if _, outcome := k.Lookup(presented, now); outcome != OK {
			b.Fatal(outcome)
		}
	}
}
