package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// chaos hurts a node at random under load and then holds three books against
// each other: what clients received, what the upstream charged, and what the
// node's log and ledger say. A violation is an error.
type chaos struct {
	b     *bench
	n     *node
	rng   *rand.Rand
	kills map[string]int
	loads []*exec.Cmd
	keys  map[string]string
	peak  map[string]int64 // KiB that a process of a kind held at most
}

// The tenants of a campaign: those whose adapter is linked in, those whose
// adapter is a plugin process, and one whose day of tokens ends in the middle.
// They are so many because a worker that is killed too often is held down, and a
// campaign without answers proves nothing.
var chaosTenants = []string{"linked-1", "linked-2", "linked-3", "plugged-1", "plugged-2", "capped"}

// cappedTokens is the day of the tenant "capped". Its price is one unit of
// money a token, so that the report's upper bounds of cost count tokens.
const cappedTokens = 400_000

const tokenPrice = `kind: PriceBook
metadata: {name: default}
spec:
  currency: USD
  prices:
    - {provider: mock, model: mock, per: 1, input: "1", output: "1"}
`

// memoryBound of one process under the campaign's load. It is far above what
// they need (20 to 80 MiB): it catches what grows, not what is large.
const memoryBound = 512 << 10 // KiB

func newChaos(bin, name string, seed uint64) (*chaos, error) {
	b, err := newBench(bin, name)
	if err != nil {
		return nil, err
	}
	return &chaos{b: b, rng: rand.New(rand.NewPCG(seed, seed)), kills: map[string]int{}, keys: map[string]string{}, peak: map[string]int64{}}, nil
}

func (c *chaos) upstreamBook() string { return filepath.Join(c.b.dir, "mock.ndjson") }
func (c *chaos) clientBook() string   { return filepath.Join(c.b.dir, "clients.ndjson") }

func runChaos(bin string, kills int, seed uint64) error {
	c, err := newChaos(bin, "chaos", seed)
	if err != nil {
		return err
	}
	fmt.Printf("chaos: seed %d, %d kills, files in %s\n", seed, kills, c.b.dir)
	if err := c.campaign(kills); err != nil {
		c.b.stopPeers()
		return fmt.Errorf("%w (kept: %s)", err, c.b.dir)
	}
	c.b.close()
	return nil
}

func (c *chaos) campaign(kills int) error {
	n, err := newNode(c.b.bin, filepath.Join(c.b.dir, "data"))
	if err != nil {
		return err
	}
	c.n = n
	if err := c.setUp(); err != nil {
		return err
	}
	defer func() { c.n.stop() }()
	if err := c.startLoads(); err != nil {
		return err
	}
	if err := c.killLoop(kills); err != nil {
		return err
	}
	c.stopLoads()
	fmt.Printf("chaos: killed %v; peaks in MiB: %v\n", c.kills, mebibytes(c.peak))
	if err := c.verify(); err != nil {
		return err
	}
	for kind, kib := range c.peak {
		if kib > memoryBound {
			return fmt.Errorf("a %s held %d MiB, want at most %d", kind, kib>>10, memoryBound>>10)
		}
	}
	return nil
}

func mebibytes(kib map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for k, v := range kib {
		out[k] = v >> 10
	}
	return out
}

// setUp starts the upstream and the node and makes the tenants.
func (c *chaos) setUp() error {
	var err error
	if c.b.mockURL, _, err = c.b.startPeer(spot{}, "mock", "-journal", c.upstreamBook()); err != nil {
		return err
	}
	if err := c.n.start(); err != nil {
		return err
	}
	if _, err := c.n.cli("", "plugin", "add", "openai", filepath.Join(c.b.bin, "bulkhead-provider-openai")); err != nil {
		return err
	}
	for _, t := range chaosTenants {
		limits := `{daily: {tokens: 100000000000}}`
		if t == "capped" {
			limits = fmt.Sprintf(`{daily: {tokens: %d}}`, cappedTokens)
		}
		if c.keys[t], err = c.n.tenant(t, c.b.mockURL+"/v1", limits); err != nil {
			return err
		}
	}
	if _, err := c.n.cli(tokenPrice, "apply", "-f", "-"); err != nil {
		return err
	}
	for _, t := range chaosTenants {
		if !strings.HasPrefix(t, "plugged") {
			continue
		}
		if _, err = c.n.cli(`kind: Provider
metadata: {name: mock, tenant: `+t+`}
spec: {adapter: openai, plugin: true, base_url: "`+c.b.mockURL+`/v1", allow_private: true}
`, "apply", "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

// startLoads sends plain and streamed requests for every tenant; a tenth hangs
// up in the middle. The capped one's are at a rate: refusals are quick.
func (c *chaos) startLoads() error {
	for _, t := range chaosTenants {
		rate := []string{"-c", "3"}
		if t == "capped" {
			rate = []string{"-rate", "60"}
		}
		cmd, err := c.b.background(spot{}, append(rate, "-url", c.n.url(), "-key", c.keys[t], "-d", "1h", "-max-tokens", "256", "-out", c.clientBook(),
			"-mock", "l=5 c=20 d=1 k="+t, "-mix", "-cancel", "0.1", "-timeout", "20s", "-pause", "50ms")...)
		if err != nil {
			return err
		}
		c.loads = append(c.loads, cmd)
	}
	return nil
}

func (c *chaos) stopLoads() {
	for _, l := range c.loads {
		l.Process.Kill()
		l.Wait()
	}
	c.loads = nil
}

// killLoop waits a random moment, kills a random part, and again: about 2.5
// kills a second.
func (c *chaos) killLoop(kills int) error {
	for done, tries := 0, 0; done < kills && tries < 20*kills; tries++ {
		time.Sleep(time.Duration(20+c.rng.IntN(760)) * time.Millisecond)
		switch k := c.rng.IntN(10); {
		case k == 0:
			c.n.kill()
			if err := c.n.start(); err != nil {
				return fmt.Errorf("restart after kill %d: %w", done, err)
			}
			c.kills["supervisor"]++
			done++
		case k <= 3:
			done += c.killOne("plugin", pluginTitle)
		default:
			done += c.killOne("worker", workerTitle)
		}
		if tries%10 == 0 {
			c.weigh()
		}
	}
	return nil
}

// killOne kills one of the processes with a title, if there is any just now.
func (c *chaos) killOne(kind, title string) int {
	pids := c.n.find(title)
	if len(pids) == 0 {
		return 0
	}
	syscall.Kill(pids[c.rng.IntN(len(pids))], syscall.SIGKILL)
	c.kills[kind]++
	return 1
}

// weigh keeps the largest resident size of each kind of process.
func (c *chaos) weigh() {
	_, stats, err := processes()
	if err != nil {
		return
	}
	c.peak["supervisor"] = max(c.peak["supervisor"], stats[c.n.cmd.Process.Pid].rss)
	for kind, title := range map[string]string{"worker": workerTitle, "plugin": pluginTitle} {
		for _, pid := range c.n.find(title) {
			c.peak[kind] = max(c.peak[kind], stats[pid].rss)
		}
	}
}
