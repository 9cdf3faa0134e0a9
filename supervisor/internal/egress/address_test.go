package egress

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestRules(t *testing.T) {
	const no, private, yes = 0, 1, 2 // never, with allow_private, always
	for address, want := range map[string]int{
		"8.8.8.8": yes, "1.1.1.1": yes, "93.184.216.34": yes, "172.15.255.255": yes, "172.32.0.0": yes, "11.0.0.0": yes,
		"2606:4700::1111": yes, "2a00:1450::8a": yes, "::ffff:8.8.8.8": yes, "2001:4860::8888": yes,

		"127.0.0.1": private, "127.255.255.254": private, "::1": private, "::ffff:127.0.0.1": private,
		"10.0.0.1": private, "172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private,
		"::ffff:10.0.0.1": private, "::ffff:192.168.0.1": private, "fc00::1": private, "fdff::1": private,

		"0.0.0.0": no, "0.1.2.3": no, "100.64.0.1": no, "100.127.255.255": no, "169.254.169.254": no, "169.254.0.1": no,
		"::ffff:169.254.169.254": no, "192.0.0.1": no, "192.0.2.1": no, "198.18.0.1": no, "198.19.255.255": no,
		"198.51.100.1": no, "203.0.113.1": no, "224.0.0.1": no, "239.255.255.255": no, "240.0.0.1": no, "255.255.255.255": no,
		"::": no, "::127.0.0.1": no, "64:ff9b::10.0.0.1": no, "64:ff9b::8.8.8.8": no, "64:ff9b:1::1": no, "::ffff:0:10.0.0.1": no,
		"2001::1": no, "2001:db8::1": no, "2002:a00:1::": no, "fe80::1": no, "fe80::1%lo": no, "febf::1": no,
		"fec0::1": no, "ff02::1": no, "100::1": no,
	} {
		a := netip.MustParseAddr(address)
		if err := (rules{}).check(a); (err == nil) != (want == yes) {
			t.Errorf("%s: %v", address, err)
		}
		if err := (rules{allowPrivate: true}).check(a); (err == nil) != (want >= private) {
			t.Errorf("%s with allow_private: %v", address, err)
		}
		listed := rules{operator: []netip.Prefix{netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())}}
		if err := listed.check(a); err != nil {
			t.Errorf("%s, listed by the operator: %v", address, err)
		}
	}
	var denied *DeniedError
	if err := (rules{allowPrivate: true}).check(netip.Addr{}); !errors.As(err, &denied) {
		t.Errorf("no address: %v", err)
	}
}

func TestRulesOwnHost(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		own, ok := netip.AddrFromSlice(addr.(*net.IPNet).IP)
		if !ok {
			continue
		}
		if !isOwn(own.Unmap()) {
			t.Errorf("%s is not known as own", own)
		}
	}
	if isOwn(netip.MustParseAddr("8.8.8.8")) {
		t.Error("8.8.8.8 is taken for our own")
	}
}

func TestParseTarget(t *testing.T) {
	for url, want := range map[string]Target{
		"":                               {},
		"http://127.0.0.1:21434/v1":      {Host: "127.0.0.1", Port: 21434},
		"https://api.example.com/v1":     {Host: "api.example.com", Port: 443},
		"http://api.example.com":         {Host: "api.example.com", Port: 80},
		"https://[2001:db8::1]:8443/x":   {Host: "2001:db8::1", Port: 8443},
		"https://[2001:db8::1]/x":        {Host: "2001:db8::1", Port: 443},
		"https://api.example.com:443/v1": {Host: "api.example.com", Port: 443},
	} {
		if got, err := ParseTarget(url); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", url, got, err)
		}
	}
	for _, url := range []string{
		"ftp://host/", "host:80", "//host", "http://", "http://:80", "http://user:pass@host/", "http://host:0/", "http://host:65536/",
		"http://host:http/", "http://ho st/", "http://[fe80::1%25lo]/", "unix:///run/x", "http://a%2fb/",
	} {
		if got, err := ParseTarget(url); err == nil {
			t.Errorf("%q: got %+v", url, got)
		}
	}
}
