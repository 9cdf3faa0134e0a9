package configs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// TestSamples loads every sample file: they are the documentation.
func TestSamples(t *testing.T) {
	var names []string
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".yaml") && !strings.HasPrefix(path, "secret-scanning/") { // those are for other programs
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), "\nkind: ") {
			if _, err := Load(name); err != nil {
				t.Errorf("%v", err)
			}
			continue
		}
		objects, err := manifest.Decode(name, strings.NewReader(string(raw)))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, o := range objects {
			if p := o.ProviderSpec; p != nil && p.Credential != nil {
				p.Credential.Sealed = []byte{1} // as the command line does before it sends
			}
		}
		for _, p := range manifest.Check(objects) {
			t.Errorf("%s: %s", name, p)
		}
	}
	if len(names) < 6 {
		t.Errorf("loaded the samples %v, want 6 at least", names)
	}
}

func TestDecode(t *testing.T) {
	s, err := Decode("s.yaml", strings.NewReader(`
node_id: n1
data_dir: /srv/bulkhead
listen: "[::1]:8080"
admin: {listen: "localhost:8081"}
isolation: {mode: standard, require: [uid]}
worker: {idle_timeout: 0s, memory_max: 1 GiB}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Worker.IdleTimeout != 0 || s.Worker.MemoryMax != 1<<30 || s.Gateway != Defaults().Gateway || s.Worker.QueueTimeout != 30*time.Second {
		t.Errorf("got %+v", s)
	}
	if s.Admin.TokenFile != "/srv/bulkhead/admin.token" || s.Cluster.KeyCredential != "cluster-key" {
		t.Errorf("completed: %+v %+v", s.Admin, s.Cluster)
	}
	want := slices.DeleteFunc(Layers(), func(l string) bool { return l == "cgroup" })
	if got := s.Isolation.Required(); !slices.Equal(got, want) {
		t.Errorf("required layers: got %v, want %v", got, want)
	}
	if got := (Isolation{Mode: Strict}).Required(); !slices.Equal(got, Layers()) {
		t.Errorf("strict requires %v", got)
	}
	if got := (Isolation{Mode: BestEffort}).Required(); got != nil {
		t.Errorf("best-effort requires %v", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const good = "node_id: n1\nallow_plain: true\n"
	tests := []struct{ name, in, want string }{
		{"empty", "# nothing\n", "s.yaml: want one YAML document, got 0"},
		{"two documents", good + "---\n" + good, "s.yaml: want one YAML document, got 2"},
		{"no node", "allow_plain: true\n", "s.yaml:1: node_id: is missing"},
		{"node", "node_id: N_1\nallow_plain: true\n", `s.yaml:1: node_id: "N_1" is no name: want 1 to 63 of a-z, 0-9 and inner hyphens`},
		{"unknown", good + "gateway: {inflight: 1}\n", "s.yaml:3: gateway.inflight: unknown field; did you mean in_flight?"},
		{"plain", "node_id: n1\n", "s.yaml:1: listen: :8080 would carry keys in clear: configure tls, listen on 127.0.0.1, or set allow_plain\n" +
			"s.yaml:1: admin.listen: :8081 would carry keys in clear: configure tls, listen on 127.0.0.1, or set allow_plain"},
		{"half tls", good + "tls: {cert_file: /a}\n", "s.yaml:3: tls: want both cert_file and key_file, or none"},
		{"address", good + "cluster: {listen: here}\n", `s.yaml:3: cluster.listen: "here" is no address such as 127.0.0.1:8080 or :8080`},
		{"port", good + "listen: \":99999\"\n", `s.yaml:3: listen: ":99999" is no address such as 127.0.0.1:8080 or :8080`},
		{"data dir", good + "data_dir: bulkhead\n", "s.yaml:3: data_dir: want an absolute path other than /"},
		{"two keys", good + "cluster: {key_file: /a, key_credential: b}\n", "s.yaml:3: cluster: want one of key_file and key_credential"},
		{"credential path", good + "cluster: {key_credential: ../b}\n", "s.yaml:3: cluster.key_credential: want the name of a credential, not a path"},
		{"mode", good + "isolation: {mode: lax}\n", `s.yaml:3: isolation.mode: "lax" is no mode; one of strict, standard, best-effort`},
		{"layer", good + "isolation:\n  require: [net, selinux]\n", `s.yaml:4: isolation.require[1]: "selinux" is no layer; one of uid, userns, mount, pid, net, ipc, uts, capabilities, no_new_privs, landlock, seccomp, rlimits, cgroup`},
		{"size", good + "worker: {memory_max: 1GB}\n", `s.yaml:3: worker.memory_max: "1GB" is no size such as 64KiB, 32MiB or 1GiB`},
		{"small", good + "worker: {memory_max: 1KiB}\n", "s.yaml:3: worker.memory_max: want 64MiB to 1TiB"},
		{"overflow", good + "worker: {memory_max: 99999999999TiB}\n", `s.yaml:3: worker.memory_max: "99999999999TiB" is no size such as 64KiB, 32MiB or 1GiB`},
		{"duration", good + "worker: {idle_timeout: 5}\n", `s.yaml:3: worker.idle_timeout: want a duration such as "30s" or "5m", got "5"`},
		{"negative", good + "gateway:\n  park: -1s\n  in_flight: 0\n", "s.yaml:4: gateway.park: want 0s to 1m0s\ns.yaml:5: gateway.in_flight: want 1 to 1048576"},
		{"journal", good + "journal: {segment: 1GiB}\n", "s.yaml:3: journal.quota: want room for two segments at least"},
		{"advertise", good + "cluster: {advertise: here}\n", `s.yaml:3: cluster.advertise: "here" is no address such as node-1.bank.example:8082`},
		{"advertise space", good + "cluster: {advertise: \"a b:1\"}\n", `s.yaml:3: cluster.advertise: "a b:1" is no address such as node-1.bank.example:8082`},
		{"advertise all", good + "cluster: {advertise: \"0.0.0.0:8082\"}\n", `s.yaml:3: cluster.advertise: names no host: want an address at which the other nodes reach this one`},
		{"advertise any", good + "cluster: {advertise: \":8082\"}\n", `s.yaml:3: cluster.advertise: names no host: want an address at which the other nodes reach this one`},
		{"advertise port", good + "cluster: {advertise: \"n1:0\"}\n", `s.yaml:3: cluster.advertise: has port 0: want the port that cluster.listen opens`},
		{"multiplier", good + "cluster: {raft_multiplier: 11}\n", `s.yaml:3: cluster.raft_multiplier: want 1 to 10`},
		{"lease", good + "cluster: {lease_ttl: 3s}\n", `s.yaml:3: cluster.lease_ttl: unknown field`},
		{"label", good + "node:\n  labels: {a: \"b c\"}\n", `s.yaml:4: node.labels: label a: "b c" is no value: want at most 63 letters, digits and . _ - /`},
		{"label name", good + "node: {labels: {a=b: c}}\n", `s.yaml:3: node.labels: "a=b" is no label: want 1 to 63 letters, digits and . _ - /`},
		{"cpu", good + "node: {capacity: {cpu: 1.2345}}\n", `s.yaml:3: node.capacity.cpu: "1.2345" is no number of cores such as 8 or 7.5`},
		{"cpus", good + "node: {capacity: {cpu: 999999}}\n", `s.yaml:3: node.capacity.cpu: want 0 to 100000 cores`},
		{"memory", good + "node: {capacity: {memory: -1}}\n", `s.yaml:3: node.capacity.memory: "-1" is no size such as 64KiB, 32MiB or 1GiB`},
		{"level", good + "log: {level: loud}\n", `s.yaml:3: log.level: "loud" is no level; one of debug, info, warn, error`},
		{"no expansion", good + "data_dir: ${HOME}/x\n", "s.yaml:3: data_dir: want an absolute path other than /"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode("s.yaml", strings.NewReader(tt.in))
			var errs Errors
			if !errors.As(err, &errs) || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestLoadSaysWhichFileIsMissing(t *testing.T) {
	if _, err := Load("/nonexistent/x.yaml"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/x.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestDefaultsNeedOnlyANodeAndTLS(t *testing.T) {
	s := Defaults()
	if s.Validate() == nil {
		t.Error("defaults alone are valid: keys would travel in clear")
	}
	s.NodeID, s.TLS = "n1", TLS{CertFile: "/a", KeyFile: "/b"}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSizeText(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1": 1, "64KiB": 64 << 10, "1536MiB": 1536 << 20, "2TiB": 2 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want || s.String() != text {
			t.Errorf("%s: got %d %s, %v", text, s, s, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "+1", "1.5GiB", "1kb", "1 2", "9999999999999999999"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: accepted as %d", text, s)
		}
	}
}

func TestCoresText(t *testing.T) {
	for text, want := range map[string]Cores{"0": 0, "8": 8000, "7.5": 7500, "0.25": 250, "0.001": 1, "999999.999": 999999999} {
		var c Cores
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want || c.String() != text {
			t.Errorf("%s: got %d %s, %v", text, c, c, err)
		}
	}
	for _, text := range []string{"", ".5", "5.", "-1", "+1", "1e3", "1.2345", "1000000", "4 ", "500m", "1.-1"} {
		var c Cores
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: accepted as %d", text, c)
		}
	}
}

// TestUnitIsHardened fails when the unit's exposure, as systemd judges it,
// exceeds 3.0 of 10.
func TestUnitIsHardened(t *testing.T) {
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	out, err := exec.Command(path, "security", "--offline=true", "--threshold=30", "--no-pager", "systemd/bulkhead.service").CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("node_id: n1\nallow_plain: true\nworker: {memory_max: 1GiB}\n")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := Decode("s.yaml", strings.NewReader(in))
		if err == nil && s.Validate() != nil {
			t.Fatalf("accepted an invalid configuration: %v", s.Validate())
		}
	})
}
