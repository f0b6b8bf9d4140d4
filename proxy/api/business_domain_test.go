package api

import (
	"fmt"
	"testing"
)

func TestDomains(t *testing.T) {
	d := NewDomains([]string{"legal", "medical", "bad name"}, "internal", "")
	for _, c := range []struct {
		rule string
		from DomainSources
		want string
	}{
		{"nobody named one", DomainSources{}, "general"},
		{"the key's domain wins", DomainSources{Key: "internal", Field: "legal", Header: "medical", Model: "legal"}, "internal"},
		{"a key's domain that isn't known", DomainSources{Key: "new"}, "other"},
		{"a listed field", DomainSources{Field: "legal", Header: "medical", Model: "internal"}, "legal"},
		{"a listed header", DomainSources{Header: "medical", Model: "internal"}, "medical"},
		{"a field that isn't listed isn't echoed", DomainSources{Field: "x", Header: "legal"}, "other"},
		{"a client can't name a domain bound to a key", DomainSources{Field: "internal"}, "other"},
		{"the model's domain", DomainSources{Model: "internal"}, "internal"},
		{"a client may say general", DomainSources{Field: "general", Model: "internal"}, "general"},
		{"names that can't be domains aren't listed", DomainSources{Field: "bad name"}, "other"},
	} {
		if got := d.Resolve(c.from); got != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
}

func TestDomainsAreBounded(t *testing.T) {
	var listed []string
	for i := range 100 {
		listed = append(listed, fmt.Sprintf("d%d", i))
	}
	d := NewDomains(listed, "bound")
	seen := map[string]bool{d.Resolve(DomainSources{}): true, d.Resolve(DomainSources{Key: "bound"}): true}
	for _, name := range listed {
		seen[d.Resolve(DomainSources{Field: name})] = true
	}
	if len(seen) != MaxDomains {
		t.Errorf("%d values, want %d", len(seen), MaxDomains)
	}
}
