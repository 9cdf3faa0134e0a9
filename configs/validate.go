package configs

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

type problem struct{ field, reason string }

type validation struct{ problems []problem }

func (s Server) problems() []problem {
	v := new(validation)
	v.node(s)
	v.listeners(s)
	v.access(s.Access)
	v.cluster(s.Cluster)
	v.machine(s.Node)
	v.isolation(s.Isolation)
	v.worker(s.Worker)
	v.gateway(s.Gateway)
	v.journal(s.Journal)
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.Log.Level) {
		v.add("log.level", fmt.Sprintf("%.40q is no level; one of debug, info, warn, error", s.Log.Level))
	}
	return v.problems
}

func (v *validation) add(field, reason string) {
	v.problems = append(v.problems, problem{field, reason})
}

func (v *validation) node(s Server) {
	v.name("node_id", s.NodeID)
	v.name("cluster.name", s.Cluster.Name)
	if !filepath.IsAbs(s.DataDir) || filepath.Clean(s.DataDir) == "/" {
		v.add("data_dir", "want an absolute path other than /")
	}
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		v.add("tls", "want both cert_file and key_file, or none")
	}
	if s.Cluster.KeyFile != "" && s.Cluster.KeyCredential != "" {
		v.add("cluster", "want one of key_file and key_credential")
	}
	if c := s.Cluster.KeyCredential; c != "" && c != filepath.Base(c) {
		v.add("cluster.key_credential", "want the name of a credential, not a path")
	}
}

func (v *validation) name(field, s string) {
	switch {
	case s == "":
		v.add(field, "is missing")
	case !bulkhead.ValidName(s):
		v.add(field, fmt.Sprintf("%.80q is no name: want 1 to 63 of a-z, 0-9 and inner hyphens", s))
	}
}

// listeners also refuses secrets on an open wire: keys on the data plane and
// tokens on the admin port are bearer secrets.
func (v *validation) listeners(s Server) {
	for _, l := range []struct {
		field, addr string
		plain       bool
	}{
		{"listen", s.Listen, !s.TLS.Enabled()},
		{"admin.listen", s.Admin.Listen, !s.TLS.Enabled()},
		{"cluster.listen", s.Cluster.Listen, false},
	} {
		host, port, err := net.SplitHostPort(l.addr)
		n, bad := strconv.Atoi(port)
		switch {
		case err != nil || bad != nil || n < 0 || n > 65535:
			v.add(l.field, fmt.Sprintf("%.80q is no address such as 127.0.0.1:8080 or :8080", l.addr))
		case l.plain && !s.AllowPlain && !loopback(host):
			v.add(l.field, fmt.Sprintf("%s would carry keys in clear: configure tls, listen on 127.0.0.1, or set allow_plain", l.addr))
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (v *validation) isolation(i Isolation) {
	switch i.Mode {
	case Strict, Standard, BestEffort:
	default:
		v.add("isolation.mode", fmt.Sprintf("%.40q is no mode; one of strict, standard, best-effort", i.Mode))
	}
	for n, layer := range i.Require {
		if !slices.Contains(Layers(), layer) {
			v.add(fmt.Sprintf("isolation.require[%d]", n), fmt.Sprintf("%.40q is no layer; one of %s", layer, strings.Join(Layers(), ", ")))
		}
	}
}

func (v *validation) worker(w Worker) {
	v.span("worker.idle_timeout", w.IdleTimeout, 0, 30*24*time.Hour)
	v.size("worker.memory_max", w.MemoryMax, 64<<20, 1<<40)
	v.number("worker.cpu_weight", w.CPUWeight, 1, 10_000)
	v.number("worker.cpu_quota", w.CPUQuota, 0, 1_000_000)
	v.number("worker.pids_max", w.PidsMax, 32, 100_000)
	v.number("worker.nofile", w.NoFile, 256, 1<<20)
	v.number("worker.queue_len", w.QueueLen, 1, 1<<20)
	v.span("worker.queue_timeout", w.QueueTimeout, time.Millisecond, time.Hour)
	v.span("worker.keep_alive", w.KeepAlive, time.Second, time.Hour)
	v.span("worker.receipt_interval", w.ReceiptInterval, time.Millisecond, time.Minute)
}

func (v *validation) gateway(g Gateway) {
	v.number("gateway.connections", g.Connections, 1, 1<<20)
	v.number("gateway.in_flight", g.InFlight, 1, 1<<20)
	v.size("gateway.buffered_bytes", g.BufferedBytes, 64<<10, 1<<40)
	v.size("gateway.max_body", g.MaxBody, 1<<10, 1<<30)
	v.size("gateway.min_body_rate", g.MinBodyRate, 1, 1<<30)
	v.span("gateway.header_timeout", g.HeaderTimeout, time.Millisecond, time.Minute)
	v.span("gateway.write_timeout", g.WriteTimeout, time.Millisecond, time.Hour)
	v.span("gateway.answer_timeout", g.AnswerTimeout, time.Millisecond, 24*time.Hour)
	v.span("gateway.park", g.Park, 0, time.Minute)
	v.number("gateway.parked", g.Parked, 0, 1<<20)
	v.span("gateway.drain_timeout", g.DrainTimeout, 0, time.Hour)
}

func (v *validation) journal(j Journal) {
	v.size("journal.segment", j.Segment, 64<<10, 1<<30)
	v.size("journal.quota", j.Quota, 1<<20, 1<<50)
	v.size("journal.min_free", j.MinFree, 0, 1<<50)
	if j.Quota < 2*j.Segment {
		v.add("journal.quota", "want room for two segments at least")
	}
}

func (v *validation) number(field string, n, least, most int) {
	if n < least || n > most {
		v.add(field, fmt.Sprintf("want %d to %d", least, most))
	}
}

func (v *validation) size(field string, n, least, most Size) {
	if n < least || n > most {
		v.add(field, fmt.Sprintf("want %s to %s", least, most))
	}
}

func (v *validation) span(field string, d, least, most time.Duration) {
	if d < least || d > most {
		v.add(field, fmt.Sprintf("want %s to %s", least, most))
	}
}
