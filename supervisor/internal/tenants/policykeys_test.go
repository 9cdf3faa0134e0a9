package tenants

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

func policyObject(tenant bulkhead.TenantID, name string, spec manifest.Policy) manifest.Object {
	return manifest.Object{Ref: ref(manifest.KindPolicy, tenant, name), PolicySpec: &spec}
}

func (n *node) policy() control.Policy {
	n.Helper()
	p, _, problems, err := Policy(n.cluster.State().View(), "acme", n.box.OpenCredential)
	if err != nil || problems != nil {
		n.Fatal(err, problems)
	}
	return p
}

// TestPolicyRules: the platform's policies and the tenant's own reach its worker,
// none hides another, and nobody else's do.
func TestPolicyRules(t *testing.T) {
	n := newNode(t, Config{},
		manifest.Object{Ref: ref(manifest.KindTenant, "", "globex"), TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"}},
		policyObject("", "floor", manifest.Policy{Models: []string{"a"}}),
		policyObject("acme", "floor", manifest.Policy{Models: []string{"b"}}),
		policyObject("globex", "own", manifest.Policy{Models: []string{"c"}}),
	)
	before := n.policy()
	var ids []string
	for _, r := range before.Rules {
		ids = append(ids, r.ID())
	}
	if !slices.Equal(ids, []string{"floor", "acme/floor"}) || before.Rules[0].Spec.Models[0] != "a" {
		t.Errorf("rules %+v", before.Rules)
	}
	n.apply(policyObject("", "tags", manifest.Policy{RequiredTags: []string{"feature"}}))
	after := n.policy()
	if after.Rev <= before.Rev || len(after.Rules) != 3 || after.Rules[1].ID() != "tags" {
		t.Errorf("rev %d, then %d; rules %+v", before.Rev, after.Rev, after.Rules)
	}
	n.apply(policyObject("globex", "own", manifest.Policy{Models: []string{"d"}}))
	if now := n.policy(); now.Rev != after.Rev {
		t.Errorf("another tenant's policy moved the rev from %d to %d", after.Rev, now.Rev)
	}
}

// TestPolicyKeyLives: a key ends no later than its environment and the policies
// say, whenever they came.
func TestPolicyKeyLives(t *testing.T) {
	n := newNode(t, Config{},
		manifest.Object{Ref: ref(manifest.KindProject, "acme", "p"), ProjectSpec: &manifest.Project{Environments: map[string]manifest.Environment{
			"prod": {MaxKeyLife: "100h"}, "test": {}, "sandbox": {},
		}}},
		manifest.Object{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: "acme", Project: "p", Name: "bot"}, ServiceAccountSpec: &manifest.ServiceAccount{Owner: "d@bank.example", Service: "scoring"}},
	)
	now := time.Now()
	create := func(id, env string, personal bool, expires time.Duration) {
		hash := sha256.Sum256([]byte(id))
		k := command.Key{
			ID: bulkhead.KeyID(id), Hash: hash[:], Display: "bh_...", Tenant: "acme", Project: "p", Env: env, Account: "bot", Owner: "d@bank.example", Personal: personal,
		}
		if expires != 0 {
			k.ExpiresAt = now.Add(expires).UnixMilli()
		}
		n.propose(&command.CreateKey{Key: k})
	}
	create("prod", "prod", false, 0)
	create("short", "prod", false, time.Hour)
	create("test", "test", false, 0)
	create("mine", "test", true, 20*24*time.Hour)
	check := func(want map[bulkhead.KeyID]time.Duration) {
		t.Helper()
		created := map[bulkhead.KeyID]int64{}
		for _, k := range n.cluster.State().View().Keys("acme") {
			created[k.ID] = k.CreatedAt
		}
		for _, k := range n.policy().Keys {
			life := time.Duration(0)
			if !k.ExpiresAt.IsZero() {
				life = k.ExpiresAt.Sub(time.UnixMilli(created[k.ID])).Round(time.Hour)
			}
			if life != want[k.ID] {
				t.Errorf("key %s lives %s, want %s", k.ID, life, want[k.ID])
			}
			if k.Personal != (k.ID == "mine") || k.Service == "" {
				t.Errorf("key %+v", k)
			}
		}
	}
	const day = 24 * time.Hour
	check(map[bulkhead.KeyID]time.Duration{"prod": 100 * time.Hour, "short": time.Hour, "test": 0, "mine": 20 * day})
	n.apply(
		policyObject("", "months", manifest.Policy{MaxKeyLife: "2160h"}),
		policyObject("acme", "days", manifest.Policy{MaxKeyLife: "240h", Environments: []string{"test"}}),
	)
	check(map[bulkhead.KeyID]time.Duration{"prod": 100 * time.Hour, "short": time.Hour, "test": 10 * day, "mine": 10 * day})
}
