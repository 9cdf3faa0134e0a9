package egress

import (
	"fmt"
	"net"
	"net/netip"
)

// private are the ranges that a provider's allow_private admits. Link-local is
// not among them: cloud metadata lives there.
var private = prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")

// denied are the ranges that no provider is in, of the IANA special-purpose
// registries. The IPv6 ones at the end embed or translate to IPv4 addresses,
// private ones too.
var denied = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16",
	"::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16",
)

// DeniedError says that a resolved address may not be connected to.
type DeniedError struct {
	Address netip.Addr
	Why     string
}

func (e *DeniedError) Error() string { return fmt.Sprintf("address %s is %s", e.Address, e.Why) }

// rules decide about one literal address. The zero value admits public
// addresses only.
type rules struct {
	allowPrivate bool
	operator     []netip.Prefix // admitted whatever the table says
	ownHost      bool           // also deny the addresses of this host
}

// check returns nil or a *DeniedError for the address of a connection attempt.
func (r rules) check(address netip.Addr) error {
	a := address.Unmap().WithZone("")
	switch {
	case !a.IsValid():
		return &DeniedError{address, "no address"}
	case contains(r.operator, a):
		return nil
	case contains(private, a):
		if r.allowPrivate {
			return nil
		}
		return &DeniedError{a, "private and the provider has no allow_private"}
	case contains(denied, a):
		return &DeniedError{a, "in a reserved range"}
	case r.ownHost && isOwn(a):
		return &DeniedError{a, "this host's own"}
	}
	return nil
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	for _, p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isOwn asks the kernel each time, since interfaces come and go. When it does
// not answer, every address counts as own.
func isOwn(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, addr := range addrs {
		ip, ok := addr.(*net.IPNet)
		if !ok {
			continue
		}
		if own, ok := netip.AddrFromSlice(ip.IP); ok && own.Unmap() == a {
			return true
		}
	}
	return false
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
