package configs

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The three samples make one cluster: what must agree agrees, what must differ
// differs.
func TestSamplesOfThreeNodes(t *testing.T) {
	var nodes []Server
	for _, name := range []string{"n1", "n2", "n3"} {
		s, err := Load("cluster/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if s.NodeID != name {
			t.Errorf("%s.yaml is of node %s", name, s.NodeID)
		}
		if err := s.Cluster.Reachable(); err != nil {
			t.Errorf("%s.yaml: %v", name, err)
		}
		if s.Node.Capacity.Memory == 0 || s.Node.Capacity.CPU == 0 || len(s.Node.Labels) == 0 {
			t.Errorf("%s.yaml says nothing of the machine", name)
		}
		nodes = append(nodes, s)
	}
	for i, s := range nodes {
		for _, other := range nodes[:i] {
			if s.NodeID == other.NodeID || s.Cluster.Advertise == other.Cluster.Advertise {
				t.Errorf("%s and %s are one node", s.NodeID, other.NodeID)
			}
			a, b := s.Cluster, other.Cluster
			a.Advertise, b.Advertise = "", ""
			if a != b || s.Admin != other.Admin || s.Isolation.Mode != other.Isolation.Mode {
				t.Errorf("%s and %s are not of one cluster: %+v and %+v", s.NodeID, other.NodeID, a, b)
			}
		}
	}
}

func TestAdvertiseFollowsListen(t *testing.T) {
	for _, tt := range []struct {
		cluster, want string
		reachable     bool
	}{
		{`{listen: "10.0.0.11:8082"}`, "10.0.0.11:8082", true},
		{`{listen: "n1.example:8082"}`, "n1.example:8082", true},
		{`{listen: "[fd00::1]:8082"}`, "[fd00::1]:8082", true},
		{`{listen: ":8082"}`, "", false},
		{`{listen: "0.0.0.0:8082"}`, "", false},
		{`{listen: "[::]:8082"}`, "", false},
		{`{listen: "127.0.0.1:0"}`, "", false},
		{`{listen: ":8082", advertise: "n1.example:18082"}`, "n1.example:18082", true},
		{`{listen: "10.0.0.11:8082", advertise: "n1.example:8082"}`, "n1.example:8082", true},
	} {
		s, err := Decode("s.yaml", strings.NewReader("node_id: n1\nallow_plain: true\ncluster: "+tt.cluster+"\n"))
		if err != nil {
			t.Errorf("%s: %v", tt.cluster, err)
			continue
		}
		if got := s.Cluster.Advertise; got != tt.want || (s.Cluster.Reachable() == nil) != tt.reachable {
			t.Errorf("%s: advertised as %q, %v", tt.cluster, got, s.Cluster.Reachable())
		}
	}
	if err := (Cluster{Advertise: "nowhere"}).Reachable(); err == nil {
		t.Error("an address that is none is reachable")
	}
}

func TestNodeSaysWhatTheMachineHas(t *testing.T) {
	s, err := Decode("s.yaml", strings.NewReader(
		"node_id: n1\nallow_plain: true\nnode:\n  labels: {bank.example/zone: a, spare: \"\"}\n  capacity: {memory: 48GiB, cpu: 7.5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.Capacity != (Capacity{48 << 30, 7500}) || s.Node.Labels["bank.example/zone"] != "a" || len(s.Node.Labels) != 2 {
		t.Errorf("got %+v", s.Node)
	}
	if s.Cluster.RaftMultiplier != 1 {
		t.Errorf("raft_multiplier is %d by default", s.Cluster.RaftMultiplier)
	}
}

// TestUnitFitsACluster reads the unit as systemd does: a restart in turn lets
// requests finish, a stalled disk starts again, and a node that must stay away
// does.
func TestUnitFitsACluster(t *testing.T) {
	raw, err := os.ReadFile("systemd/bulkhead.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			unit[name] = value
		}
	}
	if unit["Restart"] != "on-failure" || unit["StartLimitIntervalSec"] != "0" || unit["KillMode"] != "mixed" {
		t.Errorf("restart %q, start limit %q, kill mode %q", unit["Restart"], unit["StartLimitIntervalSec"], unit["KillMode"])
	}
	if got := strings.Fields(unit["RestartPreventExitStatus"]); !slices.Equal(got, []string{"2", "4"}) {
		t.Errorf("not restarted after %v; want 2 (configuration) and 4 (must stay away), not 3 (stall)", got)
	}
	stop, err := time.ParseDuration(unit["TimeoutStopSec"])
	if err != nil || stop < 2*Defaults().Gateway.DrainTimeout {
		t.Errorf("killed after %q, but requests may run for %s", unit["TimeoutStopSec"], Defaults().Gateway.DrainTimeout)
	}
}
