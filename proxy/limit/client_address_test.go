package limit

import (
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	trusted, err := ParseTrusted("10.0.0.0/8, 192.168.1.1 2001:db8::/32")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ rule, peer, header, want string }{
		{"no header", "10.0.0.1", "", "10.0.0.1"},
		{"an untrusted peer's header counts for nothing", "203.0.113.9", "198.51.100.1", "203.0.113.9"},
		{"a trusted peer names the client", "10.0.0.1", "198.51.100.1", "198.51.100.1"},
		{"only the exact address is trusted", "192.168.1.2", "198.51.100.1", "192.168.1.2"},
		{"what the client made up is left of what our proxy wrote", "10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"},
		{"through two proxies", "10.0.0.1", "198.51.100.1, 10.2.3.4", "198.51.100.1"},
		{"made up, through two proxies", "10.0.0.1", "10.9.9.9, 198.51.100.1, 10.2.3.4", "198.51.100.1"},
		{"all trusted: the leftmost", "10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"},
		{"rubbish ends the walk at the last known hop", "10.0.0.1", "198.51.100.1, rubbish, 10.0.0.2", "10.0.0.2"},
		{"rubbish alone", "10.0.0.1", "unknown", "10.0.0.1"},
		{"empty entries are rubbish", "10.0.0.1", "198.51.100.1,", "10.0.0.1"},
		{"with a port", "10.0.0.1", "198.51.100.1:4711", "198.51.100.1"},
		{"IPv6", "2001:db8::1", "2a00:1450::5", "2a00:1450::5"},
		{"IPv6 with brackets and a port", "10.0.0.1", `"[2a00:1450::5]:4711"`, "2a00:1450::5"},
		{"IPv6 with brackets", "10.0.0.1", `[2a00:1450::5]`, "2a00:1450::5"},
		{"IPv4 in IPv6 form is IPv4", "::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"},
		{"a zone doesn't hide an address", "10.0.0.1", "2001:db8::7%eth0", "2001:db8::7"},
		{"an endless chain is cut", "10.0.0.1", "198.51.100.1" + strings.Repeat(",10.0.0.7", 10000), "10.0.0.7"},
	} {
		if got := ClientAddress(netip.MustParseAddr(c.peer), c.header, trusted); got.String() != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
	if got := ClientAddress(netip.MustParseAddr("10.0.0.1"), "198.51.100.1", nil); got.String() != "10.0.0.1" {
		t.Errorf("nothing trusted: %s", got)
	}
}

func TestParseTrustedNamesEveryMistake(t *testing.T) {
	trusted, err := ParseTrusted("10.0.0.0/33 proxy.example 10.0.0.5/8,")
	if err == nil || !strings.Contains(err.Error(), `"10.0.0.0/33"`) || !strings.Contains(err.Error(), `"proxy.example"`) {
		t.Errorf("%v", err)
	}
	if len(trusted) != 1 || trusted[0].String() != "10.0.0.0/8" {
		t.Errorf("%v", trusted)
	}
	if trusted, err := ParseTrusted(" "); err != nil || len(trusted) != 0 {
		t.Errorf("empty: %v, %v", trusted, err)
	}
}

func TestAddressID(t *testing.T) {
	for addr, want := range map[string]string{
		"198.51.100.1": "ip:198.51.100.1", "2a00:1450:1:2:3:4:5:6": "ip:2a00:1450:1:2::/64", "2a00:1450:1:2:ffff::%eth0": "ip:2a00:1450:1:2::/64",
	} {
		if got := AddressID(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
	if got := AddressID(netip.Addr{}); got != "ip:invalid IP" {
		t.Errorf("no address: %s", got)
	}
}

func FuzzClientAddress(f *testing.F) {
	f.Add("198.51.100.1, 10.2.3.4")
	f.Add(`"[2a00:1450::5]:4711"`)
	f.Add("::ffff:10.0.0.1%z,,:,")
	trusted, err := ParseTrusted("10.0.0.0/8")
	if err != nil {
		f.Fatal(err)
	}
	peer := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, header string) {
		got := ClientAddress(peer, header, trusted)
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%q gives %v", header, got)
		}
	})
}
