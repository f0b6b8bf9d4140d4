package auth

import (
	"bytes"
	"strings"
	"testing"
)

func TestNewKeyCanBeUsed(t *testing.T) {
	var entry, secretOut bytes.Buffer
	if err := NewKey("ci", &entry, &secretOut); err != nil {
		t.Fatal(err)
	}
	secret, _, _ := strings.Cut(secretOut.String(), "\n")
	if len(secret) != len(secretPrefix)+secretDigits || strings.Contains(entry.String(), secret) || strings.Count(secretOut.String(), secret) != 1 {
		t.Fatalf("entry %q, secret output %q", entry.String(), secretOut.String())
	}
	k := openKeyFile(t, "keys:\n"+entry.String())
	if key, outcome := k.Lookup(secret, now); outcome != OK || key.Name != "ci" {
		t.Errorf("%v, %v", key, outcome)
	}
	var hashed bytes.Buffer
	if err := HashKey(strings.NewReader(secret+"\n"), &hashed); err != nil || !strings.Contains(entry.String(), strings.TrimSpace(hashed.String())) {
		t.Errorf("%q, %v", hashed.String(), err)
	}
}

func TestNewKeyRefusesBadNames(t *testing.T) {
	for _, name := range []string{"", "a b", "-x", "a\"b", strings.Repeat("n", 65)} {
		var out bytes.Buffer
		if err := NewKey(name, &out, &out); err == nil || out.Len() != 0 {
			t.Errorf("%q: %v, %q", name, err, out.String())
		}
	}
}

func TestSecretsHaveOneLength(t *testing.T) {
	for _, raw := range [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)} {
		secret, err := newSecret(bytes.NewReader(raw))
		if err != nil || len(secret) != len(secretPrefix)+secretDigits {
			t.Errorf("%q, %v", secret, err)
		}
	}
	if _, err := newSecret(bytes.NewReader(nil)); err == nil {
		t.Error("a secret without randomness")
	}
}

func TestHashKeyRefuses(t *testing.T) {
	for _, in := range []string{"", "\n", " x\n", "x \n", strings.Repeat("x", MaxSecretBytes+1)} {
		var out bytes.Buffer
		if err := HashKey(strings.NewReader(in), &out); err == nil || out.Len() != 0 {
			t.Errorf("%q: %v, %q", in, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := HashKey(strings.NewReader("abc\r\nmore"), &out); err != nil || out.String() != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
