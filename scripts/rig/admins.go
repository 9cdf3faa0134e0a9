package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/judge"
)

// admins work with the command line while nodes fail: they create keys, see them
// used on every node and revoke them, and raise a tenant's limit.
type admins struct {
	c       *campaign
	mu      sync.Mutex
	ops     []judge.Op
	failed  map[string]int // by verb, of which the outcome is not known
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// The campaign's tenants: without limits, dedicated, with a limit that is reached,
// with one that is raised, and one whose adapter is a plugin process.
func campaignPlans() []*plan {
	return []*plan{
		{name: "plain-1", tier: "standard"}, {name: "plain-2", tier: "standard"}, {name: "plain-3", tier: "standard"},
		{name: "plugged", tier: "standard", plugin: true},
		{name: "dedicated-1", tier: "dedicated"}, {name: "dedicated-2", tier: "dedicated"},
		{name: "capped", tier: "standard", tokens: cappedTokens},
		{name: "raised", tier: "standard", tokens: 20_000, raise: 5_000},
	}
}

func (c *campaign) makeTenants() error {
	c.plans = campaignPlans()
	if _, err := c.cli("", "plugin", "add", "openai", c.b.bin+"/bulkhead-provider-openai"); err != nil {
		return err
	}
	for _, p := range c.plans {
		if _, err := c.cli(c.document(p), "apply", "-f", "-"); err != nil {
			return err
		}
		out, err := c.cli("", createKey(p.name)...)
		if err != nil {
			return err
		}
		var k struct{ Key string }
		if err := json.Unmarshal(out, &k); err != nil {
			return fmt.Errorf("read created key: %w", err)
		}
		p.key = k.Key
	}
	_, err := c.cli(tokenPrice, "apply", "-f", "-")
	return err
}

func (c *campaign) document(p *plan) string {
	limits := "{}"
	if p.tokens > 0 {
		limits = fmt.Sprintf("{daily: {tokens: %d}}", p.tokens)
	}
	text := document(p.name, c.mockURL, limits, "0")
	text = strings.Replace(text, "  owner: owner@", "  tier: "+p.tier+"\n  owner: owner@", 1)
	if p.plugin {
		text = strings.Replace(text, "{adapter: openai,", "{adapter: openai, plugin: true,", 1)
	}
	return text
}

func createKey(tenant string) []string {
	return []string{"key", "create", "--tenant", tenant, "--project", "p", "--env", "prod", "--service-account", "s", "-o", "json"}
}

func (c *campaign) startAdmins() {
	ctx, cancel := context.WithCancel(context.Background())
	a := &admins{c: c, failed: map[string]int{}, cancel: cancel}
	c.admins = a
	for i := range 2 {
		a.running.Go(func() { a.live(ctx, i) })
	}
	for _, p := range c.plans {
		if p.raise > 0 {
			a.running.Go(func() { a.raise(ctx, p) })
		}
	}
}

func (a *admins) stop() {
	a.cancel()
	a.running.Wait()
}

// live leads keys through their lives.
func (a *admins) live(ctx context.Context, number int) {
	for n := 0; ctx.Err() == nil; n++ {
		tenant := a.c.plans[rand.IntN(3)].name
		begin := time.Now().UnixMicro()
		out, err := a.c.cli("", createKey(tenant)...)
		var k struct{ ID, Key string }
		if err != nil || json.Unmarshal(out, &k) != nil {
			a.fail("create") // nobody holds the key: nothing can be said of it
			time.Sleep(time.Second)
			continue
		}
		a.note(judge.Op{Key: k.ID, Act: judge.Create, OK: true, Begin: begin, End: time.Now().UnixMicro(), Client: number})
		a.life(k.ID, k.Key, number)
	}
}

// life uses a key on every node and revokes it while it is used.
func (a *admins) life(id, key string, number int) {
	var users sync.WaitGroup
	for u := range 3 {
		users.Go(func() {
			for range 5 {
				a.use(id, key, 10*(number+1)+u)
				time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
			}
		})
	}
	time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
	for range 3 {
		o := judge.Op{Key: id, Act: judge.Revoke, Begin: time.Now().UnixMicro(), Client: number}
		_, err := a.c.cli("", "key", "revoke", id)
		if err == nil {
			o.OK, o.End = true, time.Now().UnixMicro()
		} else {
			a.fail("revoke")
		}
		a.note(o)
		if err == nil {
			break
		}
	}
	for u := range 3 { // after the revocation's answer, on every node
		a.use(id, key, 10*(number+1)+u)
	}
	users.Wait()
}

// use asks a node with the key. What is neither yes nor no is not noted.
func (a *admins) use(id, key string, user int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	members := shuffled(a.c.members)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, members[0].url()+"/v1/models", nil)
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+key)
	client := newHTTPClient()
	defer client.CloseIdleConnections()
	o := judge.Op{Key: id, Act: judge.Use, Begin: time.Now().UnixMicro(), Client: user}
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return
	}
	o.OK, o.End = resp.StatusCode == http.StatusOK, time.Now().UnixMicro()
	a.note(o)
}

// raise lets a tenant have more, a little at a time. The ceiling is what was asked
// for, whether it is known to be in force or not.
func (a *admins) raise(ctx context.Context, p *plan) {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.tokens += p.raise
		if _, err := a.c.cli(a.c.document(p), "apply", "-f", "-"); err != nil {
			a.fail("apply")
		}
	}
}

func (a *admins) note(o judge.Op) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ops = append(a.ops, o)
}

func (a *admins) fail(verb string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed[verb]++
}

// keys counts the keys that were led through a life.
func (a *admins) keys() int {
	var ids []string
	for _, o := range a.ops {
		ids = append(ids, o.Key)
	}
	slices.Sort(ids)
	return len(slices.Compact(ids))
}
