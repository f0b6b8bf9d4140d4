package api

import "sync"

// MaxDomains bounds the values of the label domain, DomainGeneral and DomainOther included.
const MaxDomains = 32

// Domains that always exist.
const (
	DomainGeneral = "general" // nobody named one
	DomainOther   = "other"   // a client named one that isn't listed
)

// Domains is the closed set of domains of a configuration. It is safe from any goroutine.
type Domains struct {
	listed map[string]string // domains that a client may name, by name

	mu    sync.RWMutex
	known map[string]string // every value that can come out of Resolve, by name
}

// DomainSources are the places that can name a request's domain, the most trusted first.
type DomainSources struct {
	Key    string // bound to the API key
	Field  string // domain in the request
	Header string // X-Domain
	Model  string // the model's configured domain
}

// NewDomains makes the set from the domains that clients may name and those bound to keys and models, which clients may
// not name unless they are listed too. Domains beyond MaxDomains count as other.
func NewDomains(listed []string, bound ...string) *Domains {
	d := &Domains{
		listed: map[string]string{DomainGeneral: DomainGeneral},
		known:  map[string]string{DomainGeneral: DomainGeneral, DomainOther: DomainOther},
	}
	for _, name := range listed {
		if d.add(name) {
			d.listed[name] = name
		}
	}
	for _, name := range bound {
		d.add(name)
	}
	return d
}

// Bind adds a domain that is bound to a key, as NewDomains does.
func (d *Domains) Bind(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(name)
}

func (d *Domains) add(name string) bool {
	if !ValidDomain(name) {
		return false
	}
	if _, ok := d.known[name]; !ok && len(d.known) >= MaxDomains {
		return false
	}
	d.known[name] = name
	return true
}

// Resolve decides the domain of a request: the key's, else the one asked for if it is listed, else the model's, else
// general. A name outside of the set gives other. The result never shares memory with the sources.
func (d *Domains) Resolve(from DomainSources) string {
	requested := from.Field
	if requested == "" {
		requested = from.Header
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case from.Key != "":
		return memberOrOther(d.known, from.Key)
	case requested != "":
		return memberOrOther(d.listed, requested)
	case from.Model != "":
		return memberOrOther(d.known, from.Model)
	}
	return DomainGeneral
}

func memberOrOther(set map[string]string, name string) string {
	if own, ok := set[name]; ok {
		return own
	}
	return DomainOther
}

// ValidDomain reports whether s can be a domain: [A-Za-z0-9][A-Za-z0-9._-]*, at most MaxDomainBytes.
func ValidDomain(s string) bool { return len(s) <= MaxDomainBytes && isValidNamePart(s) }
