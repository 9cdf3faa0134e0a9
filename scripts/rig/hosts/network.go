package hosts

import (
	"fmt"
	"strings"
)

// The network. A private one: the range that is set aside for tests is refused as
// an upstream's by the programs under test, whatever their configuration says.
const (
	prefix     = "10.77.77."
	bridgeHost = "bh-sw"
	first      = 10
)

// Network is a set of hosts on one bridge. Its methods may be called
// concurrently for different hosts.
type Network struct{ Hosts []string }

// New names hosts; the first has the address 10.77.77.10.
func New(names ...string) *Network { return &Network{Hosts: names} }

// Addr is a host's address.
func (n *Network) Addr(host string) string {
	for i, h := range n.Hosts {
		if h == host {
			return fmt.Sprintf("%s%d", prefix, first+i)
		}
	}
	return ""
}

// link is the bridge's end of a host's cable.
func link(host string) string { return "v-" + host }

// Up makes the hosts.
func (n *Network) Up() error {
	steps := [][]string{
		{"netns", "add", bridgeHost},
		{"-n", bridgeHost, "link", "set", "lo", "up"},
		{"-n", bridgeHost, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"},
		{"-n", bridgeHost, "link", "set", "br0", "up"},
	}
	for _, h := range n.Hosts {
		steps = append(steps,
			[]string{"netns", "add", h},
			[]string{"-n", h, "link", "set", "lo", "up"},
			[]string{"link", "add", link(h), "netns", bridgeHost, "type", "veth", "peer", "name", "eth0", "netns", h},
			[]string{"-n", bridgeHost, "link", "set", link(h), "master", "br0", "up"},
			[]string{"-n", h, "addr", "add", n.Addr(h) + "/24", "dev", "eth0"},
			[]string{"-n", h, "link", "set", "eth0", "up"},
		)
	}
	for _, s := range steps {
		if err := run("", "ip", s...); err != nil {
			return err
		}
	}
	return nil
}

// Down unmakes the hosts; what runs on them keeps its sockets and reaches nobody.
func (n *Network) Down() error {
	for _, h := range append([]string{bridgeHost}, n.Hosts...) {
		if err := run("", "ip", "netns", "del", h); err != nil {
			return err
		}
	}
	return nil
}

// filter puts rules in force on a host in place of all others.
func (n *Network) filter(host string, rules ...string) error {
	var in, out []string
	for _, r := range rules {
		if rest, ok := strings.CutPrefix(r, "out "); ok {
			out = append(out, rest)
		} else {
			in = append(in, r)
		}
	}
	text := fmt.Sprintf(`flush ruleset
table inet rig {
  chain in { type filter hook input priority 0; policy accept;
    %s
  }
  chain out { type filter hook output priority 0; policy accept;
    %s
  }
}
`, strings.Join(in, "\n    "), strings.Join(out, "\n    "))
	cmd := Launch{Host: host}.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("filter on %s: %w: %s", host, err, b)
	}
	return nil
}

// Deafen makes a host hear nothing from others: a one-way partition.
func (n *Network) Deafen(host string, others ...string) error {
	return n.filter(host, n.from("drop", others)...)
}

func (n *Network) from(verdict string, others []string) (rules []string) {
	for _, o := range others {
		rules = append(rules, fmt.Sprintf("ip saddr %s %s", n.Addr(o), verdict))
	}
	return rules
}

// Partition separates a host from others, both ways.
func (n *Network) Partition(host string, others ...string) error {
	rules := n.from("drop", others)
	for _, o := range others {
		rules = append(rules, fmt.Sprintf("out ip daddr %s drop", n.Addr(o)))
	}
	return n.filter(host, rules...)
}

// Isolate separates a host from all others.
func (n *Network) Isolate(host string) error {
	return n.filter(host, `iifname "eth0" drop`, `out oifname "eth0" drop`)
}

// Reset answers every packet between a host and others with a TCP reset:
// connections break at once instead of falling silent.
func (n *Network) Reset(host string, others ...string) error {
	const verdict = "tcp flags & rst == 0 reject with tcp reset"
	for _, o := range others {
		if err := n.filter(o, n.from(verdict, []string{host})...); err != nil {
			return err
		}
	}
	return n.filter(host, n.from(verdict, others)...)
}

// Unplug takes out a host's cable: the carrier is lost.
func (n *Network) Unplug(host string) error {
	return run("", "ip", "-n", bridgeHost, "link", "set", link(host), "down")
}

// Heal undoes every fault of every host.
func (n *Network) Heal() error {
	for _, h := range n.Hosts {
		if err := n.filter(h); err != nil {
			return err
		}
		if err := run("", "ip", "-n", bridgeHost, "link", "set", link(h), "up"); err != nil {
			return err
		}
	}
	return nil
}
