package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// chaos kills parts of a node at random under load and then holds three books
// against each other: what clients received, what the upstream charged, and
// what the ledger says. A violation is an error.
type chaos struct {
	b     *bench
	n     *node
	rng   *rand.Rand
	kills map[string]int
	loads []*exec.Cmd
	mock  string // the upstream's journal
	seen  string // the clients' record
}

// tenants of the campaign; the second one's adapter runs as a plugin process.
var chaosTenants = []string{"linked", "plugged"}

func runChaos(bin string, kills int, seed uint64) error {
	dir, err := os.MkdirTemp("", "bulkhead-chaos-")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := &chaos{
		b:   &bench{bin: bin, dir: dir, self: self},
		rng: rand.New(rand.NewPCG(seed, seed)), kills: map[string]int{},
		mock: filepath.Join(dir, "mock.ndjson"), seen: filepath.Join(dir, "clients.ndjson"),
	}
	fmt.Printf("chaos: seed %d, %d kills, files in %s\n", seed, kills, dir)
	defer c.b.stop()
	if err := c.campaign(kills); err != nil {
		return fmt.Errorf("%w (kept: %s)", err, dir)
	}
	return os.RemoveAll(dir)
}

func (c *chaos) campaign(kills int) error {
	keys, err := c.setUp()
	if err != nil {
		return err
	}
	defer func() { c.n.stop() }()
	for i, tenant := range chaosTenants {
		for _, stream := range []bool{false, true} {
			if err := c.startLoad(tenant, keys[i], stream); err != nil {
				return err
			}
		}
	}
	if err := c.killLoop(kills); err != nil {
		return err
	}
	for _, l := range c.loads {
		l.Process.Signal(syscall.SIGTERM)
		l.Wait()
	}
	fmt.Printf("chaos: killed %v\n", c.kills)
	return c.verify(keys)
}

func (c *chaos) setUp() ([]string, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.b.mockURL = "http://127.0.0.1:" + port
	cmd := exec.Command(c.b.self, "mock", "-addr", "127.0.0.1:"+port, "-journal", c.mock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.b.children = append(c.b.children, cmd)
	if c.n, err = newNode(c.b.bin, filepath.Join(c.b.dir, "data")); err != nil {
		return nil, err
	}
	if err := c.n.start(); err != nil {
		return nil, err
	}
	if _, err := c.n.cli("", "plugin", "add", "openai", filepath.Join(c.b.bin, "bulkhead-provider-openai")); err != nil {
		return nil, err
	}
	var keys []string
	for _, t := range chaosTenants {
		key, err := c.n.tenant(t, c.b.mockURL+"/v1", `{daily: {tokens: 100000000000}}`)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	_, err = c.n.cli(`kind: Provider
metadata: {name: mock, tenant: plugged}
spec: {adapter: openai, plugin: true, base_url: "`+c.b.mockURL+`/v1", allow_private: true}
`, "apply", "-f", "-")
	return keys, err
}

func (c *chaos) startLoad(tenant, key string, stream bool) error {
	args := []string{"load", "-url", c.n.url(), "-key", key, "-c", "3", "-d", "1h", "-max-tokens", "256", "-out", c.seen,
		"-mock", "l=5 c=20 d=1 k=" + tenant, "-cancel", "0.1", "-timeout", "20s"}
	if stream {
		args = append(args, "-stream")
	}
	cmd := exec.Command(c.b.self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.loads = append(c.loads, cmd)
	return nil
}

// killLoop kills a random part, waits a random moment, and again.
func (c *chaos) killLoop(kills int) error {
	for i := range kills {
		time.Sleep(time.Duration(20+c.rng.IntN(180)) * time.Millisecond)
		what := "worker"
		switch n := c.rng.IntN(10); {
		case n == 0:
			what = "supervisor"
		case n <= 3:
			what = "plugin"
		}
		if what == "supervisor" {
			c.n.kill()
			if err := c.n.start(); err != nil {
				return fmt.Errorf("restart after kill %d: %w", i, err)
			}
			c.kills[what]++
			continue
		}
		prefix := "bulkhead-worker\x00tenant="
		if what == "plugin" {
			prefix = "bulkhead-provider-"
		}
		pids := c.find(prefix)
		if len(pids) == 0 {
			continue // it is starting: nothing to kill this time
		}
		syscall.Kill(pids[c.rng.IntN(len(pids))], syscall.SIGKILL)
		c.kills[what]++
	}
	return nil
}

// find lists the node's processes whose command line starts with prefix.
func (c *chaos) find(prefix string) []int {
	children, _, err := processes()
	if err != nil {
		return nil
	}
	var out []int
	var walk func(pid int)
	walk = func(pid int) {
		cmdline, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if bytes.HasPrefix(cmdline, []byte(prefix)) {
			out = append(out, pid)
		}
		for _, child := range children[pid] {
			walk(child)
		}
	}
	walk(c.n.cmd.Process.Pid)
	return out
}

// line is what the checks read of `bulkhead logs`.
type logLine struct {
	Request string `json:"request_id"`
	Attempt int    `json:"attempts"`
	Outcome string `json:"outcome"`
	Code    string `json:"code"`
	Input   int64  `json:"input_tokens"`
	Output  int64  `json:"output_tokens"`
}

// verify holds the books against each other.
func (c *chaos) verify(keys []string) error {
	// One more request of each tenant wakes its worker, which resolves what the
	// last kill left open.
	for _, key := range keys {
		if _, err := c.b.load("-url", c.n.url(), "-key", key, "-n", "1", "-c", "1", "-d", "20s", "-out", c.seen, "-max-tokens", "256", "-mock", "k=last"); err != nil {
			return err
		}
	}
	lines := map[string]map[int][]logLine{}
	var input, output, served int64
	for _, tenant := range chaosTenants {
		out, err := c.n.cli("", "logs", "--tenant", tenant, "-o", "json")
		if err != nil {
			return err
		}
		for s := range strings.Lines(string(out)) {
			var l logLine
			if err := json.Unmarshal([]byte(s), &l); err != nil {
				return fmt.Errorf("log line %q: %w", s, err)
			}
			if lines[l.Request] == nil {
				lines[l.Request] = map[int][]logLine{}
			}
			lines[l.Request][l.Attempt] = append(lines[l.Request][l.Attempt], l)
			input, output = input+l.Input, output+l.Output
			if l.Outcome == "served" {
				served++
			}
		}
	}
	var problems []error
	problems = append(problems, c.checkClients(lines)...)
	problems = append(problems, c.checkUpstream(lines)...)
	problems = append(problems, c.checkLedger(input, output, served)...)
	if len(problems) > 20 {
		problems = append(problems[:20], fmt.Errorf("... %d in all", len(problems)))
	}
	return errors.Join(problems...)
}

// checkClients: an answer that a client holds whole is on the books exactly once.
func (c *chaos) checkClients(lines map[string]map[int][]logLine) (problems []error) {
	complete := 0
	eachLine(c.seen, func(b []byte) {
		var s struct {
			Request  string `json:"request_id"`
			Complete bool   `json:"complete"`
		}
		if json.Unmarshal(b, &s) != nil || !s.Complete {
			return
		}
		complete++
		finals := 0
		for _, attempts := range lines[s.Request] {
			for _, l := range attempts {
				if l.Outcome == "served" {
					finals++
				}
			}
		}
		if finals != 1 {
			problems = append(problems, fmt.Errorf("request %s: the client holds the answer, the books have it %d times", s.Request, finals))
		}
	})
	if complete == 0 {
		problems = append(problems, errors.New("no client got an answer: the campaign proves nothing"))
	}
	fmt.Printf("chaos: %d complete answers at clients\n", complete)
	return problems
}

// checkUpstream: what the upstream charged has exactly one record; a served
// record has a charge.
func (c *chaos) checkUpstream(lines map[string]map[int][]logLine) (problems []error) {
	charged := map[string]bool{}
	eachLine(c.mock, func(b []byte) {
		var e entry
		if json.Unmarshal(b, &e) == nil && e.Client != "" && e.Status == 200 {
			if charged[e.Client] {
				problems = append(problems, fmt.Errorf("%s was sent upstream twice", e.Client))
			}
			charged[e.Client] = true
		}
	})
	for id := range charged {
		i := strings.LastIndexByte(id, '-')
		attempt, _ := strconv.Atoi(id[i+1:])
		if n := len(lines[id[:i]][attempt]); n != 1 {
			problems = append(problems, fmt.Errorf("%s: the upstream has it, the books have it %d times", id, n))
		}
	}
	unknown := 0
	for request, attempts := range lines {
		for attempt, ls := range attempts {
			if ls[0].Code == "outcome_unknown" {
				unknown++
			}
			if ls[0].Outcome == "served" && !charged[fmt.Sprintf("%s-%d", request, attempt)] {
				problems = append(problems, fmt.Errorf("%s-%d: served, but the upstream has no record", request, attempt))
			}
		}
	}
	fmt.Printf("chaos: %d charged upstream, %d records of unknown outcome\n", len(charged), unknown)
	return problems
}

// checkLedger: the replicated sums are the sums of the records.
func (c *chaos) checkLedger(input, output, served int64) []error {
	var last error
	for range 50 { // receipts are booked once a second
		out, err := c.n.cli("", "usage", "report", "--by", "tenant", "-o", "json")
		if err != nil {
			return []error{err}
		}
		var rows []struct {
			Tenant string `json:"tenant"`
			Served int64  `json:"served"`
			Input  int64  `json:"input_tokens"`
			Output int64  `json:"output_tokens"`
		}
		if err := json.Unmarshal(out, &rows); err != nil {
			return []error{fmt.Errorf("read usage report: %w", err)}
		}
		var in, o, s int64
		for _, r := range rows {
			if r.Tenant == chaosTenants[0] || r.Tenant == chaosTenants[1] {
				in, o, s = in+r.Input, o+r.Output, s+r.Served
			}
		}
		if in == input && o == output && s == served {
			fmt.Printf("chaos: ledger and logs agree: %d served, %d + %d tokens\n", s, in, o)
			return nil
		}
		last = fmt.Errorf("ledger has %d served, %d + %d tokens; the logs sum to %d, %d + %d", s, in, o, served, input, output)
		time.Sleep(200 * time.Millisecond)
	}
	return []error{last}
}

func eachLine(path string, f func([]byte)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	for s.Scan() {
		f(s.Bytes())
	}
}
