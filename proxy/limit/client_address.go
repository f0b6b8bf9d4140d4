package limit

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxHops is how many entries of X-Forwarded-For are read, from the right.
const maxHops = 32

// ipv6ClientBits is the length of the prefix that identifies one customer; the customer can change the rest at will.
const ipv6ClientBits = 64

// ParseTrusted reads TRUSTED_PROXIES: addresses and CIDR prefixes, separated by commas or spaces.
func ParseTrusted(s string) ([]netip.Prefix, error) {
	var trusted []netip.Prefix
	var errs []error
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		prefix, err := parsePrefix(field)
		if err != nil {
			errs = append(errs, fmt.Errorf("trusted proxy %q: want an address such as 10.0.0.1 or a prefix such as 10.0.0.0/8", field))
			continue
		}
		trusted = append(trusted, prefix)
	}
	return trusted, errors.Join(errs...)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		prefix, err := netip.ParsePrefix(s)
		if err == nil && prefix.Addr().Is4In6() {
			return netip.Prefix{}, errors.New("IPv4 prefix in IPv6 form")
		}
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// ClientAddress is the address a request came from: the peer's, unless the peer is a trusted proxy. Then it is the
// rightmost entry of X-Forwarded-For that isn't a trusted proxy itself, since the client may have made up everything
// left of that. forwardedFor is the header's value, several headers joined by commas in their order.
func ClientAddress(peer netip.Addr, forwardedFor string, trusted []netip.Prefix) netip.Addr {
	client := peer.Unmap().WithZone("")
	for range maxHops {
		if forwardedFor == "" || !contains(trusted, client) {
			break
		}
		entry := forwardedFor
		if comma := strings.LastIndexByte(forwardedFor, ','); comma >= 0 {
			forwardedFor, entry = forwardedFor[:comma], forwardedFor[comma+1:]
		} else {
			forwardedFor = ""
		}
		hop, ok := parseHop(entry)
		if !ok {
			break
		}
		client = hop
	}
	return client
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// parseHop reads an address with or without a port, as different proxies write it.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t\"")
	if port, err := netip.ParseAddrPort(s); err == nil {
		return port.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}

// AddressID is the id by which requests of an address are counted: the address, of IPv6 its first 64 bits.
func AddressID(addr netip.Addr) string {
	if addr.Is4() || !addr.IsValid() {
		return "ip:" + addr.String()
	}
	return "ip:" + netip.PrefixFrom(addr.WithZone(""), ipv6ClientBits).Masked().String()
}
