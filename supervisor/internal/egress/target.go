package egress

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Target is what the policy allows under the name of one provider.
type Target struct {
	Host         string // name or literal address, without port; empty = nothing to dial
	Port         uint16
	AllowPrivate bool   // loopback and private addresses are admitted
	Plugin       bool   // the provider's adapter runs as a plugin process
	Adapter      string // name of the plugin
	Digest       string // SHA-256 (hex) of the plugin binary
}

// ParseTarget finds host and port in a provider's base URL. An empty URL is a
// target that cannot be dialled. Anything but http and https, user information
// and a host that cannot be one are errors.
func ParseTarget(baseURL string) (Target, error) {
	if baseURL == "" {
		return Target{}, nil
	}
	u, err := url.Parse(baseURL)
	if err != nil {
		return Target{}, fmt.Errorf("base URL: %w", err)
	}
	port := map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if port == 0 {
		return Target{}, fmt.Errorf("base URL: scheme %q is neither http nor https", u.Scheme)
	}
	if u.User != nil {
		return Target{}, fmt.Errorf("base URL: has user information")
	}
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("base URL: port %q", text)
		}
		port = uint16(n)
	}
	host := u.Hostname()
	if host == "" || strings.ContainsAny(host, "%/\\ ") {
		return Target{}, fmt.Errorf("base URL: host %q", host)
	}
	return Target{Host: host, Port: port}, nil
}

func (t Target) address() string {
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}
