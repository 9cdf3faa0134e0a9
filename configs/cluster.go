package configs

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// maxAddr bounds an address that is told to other nodes, in bytes.
const maxAddr = 300

// Reachable answers why other nodes could not dial this one, nil when nothing
// speaks against it. A node needs it only to begin or join a cluster.
func (c Cluster) Reachable() error {
	if c.Advertise == "" {
		return fmt.Errorf("cluster.advertise: is missing, and cluster.listen (%s) names no address that other nodes could dial", c.Listen)
	}
	if err := dialable(c.Advertise); err != nil {
		return fmt.Errorf("cluster.advertise: %w", err)
	}
	return nil
}

func (v *validation) cluster(c Cluster) {
	if c.Advertise != "" {
		if err := dialable(c.Advertise); err != nil {
			v.add("cluster.advertise", err.Error())
		}
	}
	v.number("cluster.raft_multiplier", c.RaftMultiplier, 1, 10)
}

func (v *validation) machine(n Node) {
	if err := manifest.CheckLabels(n.Labels); err != nil {
		v.add("node.labels", err.Error())
	}
	v.size("node.capacity.memory", n.Capacity.Memory, 0, 1<<50)
	if n.Capacity.CPU < 0 || n.Capacity.CPU > maxCores {
		v.add("node.capacity.cpu", fmt.Sprintf("want 0 to %s cores", maxCores))
	}
}

// dialable accepts host:port as others can use it: with a host, which is not
// "every address", and a port, which is not "any".
func dialable(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	n, bad := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	switch {
	case err != nil || bad != nil || len(addr) > maxAddr || strings.ContainsFunc(addr, unprintable):
		return fmt.Errorf("%.80q is no address such as node-1.bank.example:8082", addr)
	case host == "" || ip != nil && ip.IsUnspecified():
		return errors.New("names no host: want an address at which the other nodes reach this one")
	case n == 0:
		return errors.New("has port 0: want the port that cluster.listen opens")
	}
	return nil
}

func unprintable(r rune) bool { return r <= ' ' || r >= 0x7f }
