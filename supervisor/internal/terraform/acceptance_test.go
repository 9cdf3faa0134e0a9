package terraform_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/terraform"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	state "github.com/hashicorp/terraform-plugin-testing/terraform"
)

// These tests start a real OpenTofu. scripts/terraform.sh builds one and sets what
// they need.
func needTofu(t *testing.T) {
	t.Helper()
	if os.Getenv("TF_ACC") == "" {
		t.Skip("needs OpenTofu: scripts/terraform.sh builds one and runs this")
	}
}

// inProcess lets OpenTofu use the provider of this process.
func inProcess(t *testing.T, f *admintest.Fixture) map[string]func() (tfprotov6.ProviderServer, error) {
	t.Setenv("BULKHEAD_ADDR", f.URL)
	t.Setenv("BULKHEAD_TOKEN", admintest.Token)
	return map[string]func() (tfprotov6.ProviderServer, error){
		"bulkhead": func() (tfprotov6.ProviderServer, error) {
			return providerserver.NewProtocol6(terraform.New(terraform.Config{Version: "test"}))(), nil
		},
	}
}

const accTeam = `
resource "bulkhead_tenant" "t" {
  name        = "fraud"
  owner       = "owner@bank.example"
  cost_center = "CC-1"
  limits      = { requests_per_minute = 600, daily = { cost = "25.0" } }
}
resource "bulkhead_provider" "p" {
  name     = "main"
  tenant   = bulkhead_tenant.t.name
  adapter  = "openai"
  base_url = "https://up.example/v1"
  credential_wo         = "sk-canary-1"
  credential_wo_version = "1"
}
resource "bulkhead_route" "r" {
  name    = "vendor/fast"
  tenant  = bulkhead_tenant.t.name
  targets = [{ provider = bulkhead_provider.p.name, model = "tiny" }]
}
resource "bulkhead_project" "p" {
  name         = "scoring"
  tenant       = bulkhead_tenant.t.name
  environments = { prod = { models = [bulkhead_route.r.name] }, test = {} }
}
resource "bulkhead_service_account" "s" {
  name    = "scorer"
  tenant  = bulkhead_tenant.t.name
  project = bulkhead_project.p.name
  owner   = "dev@bank.example"
}
resource "bulkhead_policy" "p" {
  name      = "chat"
  tenant    = bulkhead_tenant.t.name
  endpoints = ["chat/completions"]
}
resource "bulkhead_price_book" "b" {
  name     = "default"
  currency = "USD"
  prices   = [{ provider = bulkhead_provider.p.name, model = "tiny", per = 1000000, input = "0.25", output = "2.00" }]
}
resource "bulkhead_key" "k" {
  tenant          = bulkhead_tenant.t.name
  project         = bulkhead_project.p.name
  env             = "prod"
  service_account = bulkhead_service_account.s.name
  rotate_when     = { quarter = "1" }
}
`

// TestAccTeam: a team is made, imported, changed by others, mended, rotated and
// destroyed; every step ends with an empty plan, which the framework checks.
func TestAccTeam(t *testing.T) {
	needTofu(t)
	f := admintest.New(t, nil)
	var keys []string
	remember := resource.TestCheckResourceAttrWith("bulkhead_key.k", "id", func(id string) error {
		keys = append(keys, id)
		return nil
	})
	changed := strings.NewReplacer(`"CC-1"`, `"CC-2"`, `quarter = "1"`, `quarter = "2"`).Replace(accTeam)
	imported := func(address, id string, unread ...string) resource.TestStep {
		return resource.TestStep{ResourceName: address, ImportState: true, ImportStateId: id, ImportStateVerify: true, ImportStateVerifyIgnore: unread}
	}
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: inProcess(t, f),
		Steps: []resource.TestStep{
			{Config: accTeam, Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr("bulkhead_provider.p", "has_credential", "true"),
				resource.TestCheckNoResourceAttr("bulkhead_provider.p", "credential_wo"),
				resource.TestCheckResourceAttr("bulkhead_service_account.s", "id", "fraud/scoring/scorer"),
				resource.TestMatchResourceAttr("bulkhead_key.k", "key", regexp.MustCompile(`^bh_`)),
				noCanary, remember,
			)},
			imported("bulkhead_tenant.t", "fraud", "limits.daily.cost"), // 25.0 is 25.00 there
			imported("bulkhead_provider.p", "fraud/main", "credential_wo_version"),
			imported("bulkhead_route.r", "fraud/vendor/fast"),
			imported("bulkhead_service_account.s", "fraud/scoring/scorer"),
			imported("bulkhead_price_book.b", "default"),
			{PreConfig: func() { spoil(t, f) }, Config: accTeam, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
				plancheck.ExpectResourceAction("bulkhead_tenant.t", plancheck.ResourceActionUpdate),
				plancheck.ExpectResourceAction("bulkhead_policy.p", plancheck.ResourceActionCreate),
				plancheck.ExpectResourceAction("bulkhead_provider.p", plancheck.ResourceActionUpdate),
				plancheck.ExpectResourceAction("bulkhead_key.k", plancheck.ResourceActionNoop),
			}}, Check: resource.TestCheckResourceAttr("bulkhead_provider.p", "has_credential", "true")},
			{Config: changed, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
				plancheck.ExpectResourceAction("bulkhead_key.k", plancheck.ResourceActionUpdate),
			}}, Check: remember},
			{Config: strings.Replace(changed, `owner       = "owner@bank.example"`, `owner       = "nobody"`, 1), ExpectError: regexp.MustCompile(`(?s)owner\s+= "nobody".*no e-mail address`)},
		},
		CheckDestroy: func(*state.State) error {
			if left := f.Cluster.State().View().AllObjects(); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
			return nil
		},
	})
	if len(keys) != 2 || keys[0] == keys[1] {
		t.Fatalf("keys %v, want one before and one after a rotation", keys)
	}
	for _, id := range keys {
		if k, ok := f.Cluster.State().Key(bulkhead.KeyID(id)); ok && k.RevokedAt == 0 {
			t.Errorf("%s outlives the destroy", id)
		}
	}
}

// spoil does what somebody else may do between two runs.
func spoil(t *testing.T, f *admintest.Fixture) {
	apply(t, f, tenant("fraud", "CC-9"), manifest.Object{
		Ref:          manifest.Ref{Kind: manifest.KindProvider, Tenant: "fraud", Name: "main"},
		ProviderSpec: &manifest.Provider{Adapter: "openai", BaseURL: "https://up.example/v1"},
	})
	propose(t, f, &command.Apply{Delete: []manifest.Ref{{Kind: manifest.KindPolicy, Tenant: "fraud", Name: "chat"}}})
}

func noCanary(s *state.State) error {
	if strings.Contains(s.String(), "canary") {
		return fmt.Errorf("a credential is in the state: %s", s)
	}
	return nil
}

// TestAccTenantWithData: the refusal reaches whoever runs a destroy.
func TestAccTenantWithData(t *testing.T) {
	needTofu(t)
	f := admintest.New(t, nil)
	config := `resource "bulkhead_tenant" "t" {
  name        = "fraud"
  owner       = "owner@bank.example"
  cost_center = "CC-1"
}`
	f.Cluster.SetBefore(func(cmd command.Command) error {
		if a, ok := cmd.(*command.Apply); ok && len(a.Delete) > 0 {
			return bulkhead.E(bulkhead.Conflict, "use_tenant_delete", "Tenant fraud has data.")
		}
		return nil
	})
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: inProcess(t, f),
		Steps: []resource.TestStep{
			{Config: config},
			{Config: config, Destroy: true, ExpectError: regexp.MustCompile(`bulkhead tenant delete fraud --reason`)},
			{PreConfig: func() { f.Cluster.SetBefore(nil) }, Config: config}, // so that it goes at the end
		},
	})
}
