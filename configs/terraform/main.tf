# One team as code: the objects of ../acme.yaml for another team, and a key.
#
#   BULKHEAD_ADDR=http://127.0.0.1:8081 BULKHEAD_TOKEN=... TF_VAR_upstream_key=sk-... tofu apply

terraform {
  required_version = ">= 1.11" # write-only attributes
  required_providers {
    bulkhead = { source = "bulkhead-ai/bulkhead" }
  }
}

provider "bulkhead" {
  reason = "team fraud as code" # for the audit trail
}

variable "upstream_key" {
  description = "What the upstream wants as a credential; it is sealed here and in no plan and no state."
  type        = string
  sensitive   = true
  ephemeral   = true
}

resource "bulkhead_tenant" "fraud" {
  name         = "fraud"
  display_name = "Fraud prevention"
  owner        = "owner@fraud.example"
  cost_center  = "CC-1042"
  time_zone    = "Europe/Berlin"
  limits = {
    requests_per_minute = 600
    tokens_per_minute   = 200000
    burst               = 50
    concurrency         = 32
    daily               = { requests = 20000, tokens = 5000000, cost = "25.00" }
    monthly             = { cost = "500.00" }
  }
}

resource "bulkhead_provider" "main" {
  name                  = "main"
  tenant                = bulkhead_tenant.fraud.name
  adapter               = "openai"
  base_url              = "http://127.0.0.1:21434/v1"
  allow_private         = true
  credential_wo         = var.upstream_key
  credential_wo_version = "1" # another text when the credential is another one
}

resource "bulkhead_route" "fast" {
  name    = "fast"
  tenant  = bulkhead_tenant.fraud.name
  targets = [{ provider = bulkhead_provider.main.name, model = "tiny" }]
}

# Of the platform, one for all teams. Where there is one already, write its prices
# here too and take it over first: tofu import bulkhead_price_book.default default
resource "bulkhead_price_book" "default" {
  name     = "default"
  currency = "USD"
  prices = [
    { provider = bulkhead_provider.main.name, model = "tiny", per = 1000000, input = "0.25", output = "2.00", cache_read = "0.025" },
  ]
}

resource "bulkhead_project" "web" {
  name   = "web"
  tenant = bulkhead_tenant.fraud.name
  environments = {
    prod    = { models = [bulkhead_route.fast.name], max_key_life = "8760h" }
    test    = { models = [bulkhead_route.fast.name], limits = { daily = { cost = "1.00" } } }
    sandbox = { personal_keys = true, log = "usage" }
  }
}

resource "bulkhead_policy" "chat_only" {
  name         = "chat-only"
  tenant       = bulkhead_tenant.fraud.name
  environments = ["prod"]
  endpoints    = ["chat/completions"]
}

resource "bulkhead_service_account" "bot" {
  name    = "bot"
  tenant  = bulkhead_tenant.fraud.name
  project = bulkhead_project.web.name
  owner   = "dev@fraud.example"
  service = "Web assistant"
}

# Handed over by a link that works once, so that the key is not in the state.
resource "bulkhead_key" "bot" {
  tenant          = bulkhead_tenant.fraud.name
  project         = bulkhead_project.web.name
  env             = "prod"
  service_account = bulkhead_service_account.bot.name
  label           = "web servers"
  wrap_for        = "24h"
  rotate_when     = { quarter = "2027-1" }
  overlap         = "72h"
}

output "link_token" {
  description = "For `bulkhead key unwrap`, once."
  value       = bulkhead_key.bot.link_token
  sensitive   = true
}
