package terraform

import (
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
)

// Attributes that are not fields of a spec.
const (
	idAttribute         = "id"
	nameAttribute       = "name"
	tenantAttribute     = "tenant"
	projectAttribute    = "project"
	credentialAttribute = "credential_wo"
	versionAttribute    = "credential_wo_version"
	sealedAttribute     = "has_credential"
)

// costAttribute is a decimal that the server writes in one form.
const costAttribute = "cost"

type attributes = map[string]schema.Attribute

func text(doc string) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, MarkdownDescription: doc}
}

func needed(doc string) schema.StringAttribute {
	return schema.StringAttribute{Required: true, MarkdownDescription: doc}
}

func count(doc string) schema.Int64Attribute {
	return schema.Int64Attribute{Optional: true, MarkdownDescription: doc}
}

func truth(doc string) schema.BoolAttribute {
	return schema.BoolAttribute{Optional: true, MarkdownDescription: doc}
}

func words(doc string) schema.SetAttribute {
	return schema.SetAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: doc}
}

func table(doc string) schema.MapAttribute {
	return schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: doc}
}

// identity is a part of what an object is called: another one is another object.
func identity(doc string, required bool) schema.StringAttribute {
	return schema.StringAttribute{
		Required: required, Optional: !required, MarkdownDescription: doc,
		PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
	}
}

func identifier(doc string) schema.StringAttribute {
	return schema.StringAttribute{
		Computed: true, MarkdownDescription: doc,
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
	}
}

func limits() schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: "Ceilings. Those of tenant, project, environment and service account must all hold; what is not written is not limited.",
		Attributes: attributes{
			"requests_per_minute": count("Over every span of 60 seconds."),
			"tokens_per_minute":   count("Over every span of 60 seconds."),
			"burst":               count("Requests that may pass at once beyond the steady rate; needs `requests_per_minute`."),
			"concurrency":         count("Requests in flight."),
			"daily":               window("Per calendar day of the tenant's time zone."),
			"monthly":             window("Per calendar month of the tenant's time zone."),
		},
	}
}

func window(doc string) schema.SingleNestedAttribute {
	return schema.SingleNestedAttribute{Optional: true, MarkdownDescription: doc, Attributes: attributes{
		"requests":    count("Requests."),
		"tokens":      count("Tokens, in and out."),
		costAttribute: text("Decimal in the currency of the price book, such as `\"25.00\"`."),
	}}
}

func tenantSpec() attributes {
	return attributes{
		"display_name": text("For people."),
		"owner":        needed("E-mail address of who answers for it."),
		"cost_center":  needed("Who pays."),
		"tier":         text("`standard` (default) or `dedicated`."),
		"time_zone":    text("IANA name, default UTC; calendar windows and report days follow it."),
		"log_content":  text("Only `none` (default) exists."),
		"idle_timeout": text("Duration such as `10m` after which the tenant's process ends; `0` = never; default from the node's configuration."),
		"limits":       limits(),
		"placement": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "Where in a cluster it may run; default: any node.",
			Attributes: attributes{
				"node":   text("This node only (tier `dedicated`)."),
				"labels": table("The node must have all of them."),
			},
		},
	}
}

func projectSpec() attributes {
	return attributes{
		"cost_center": text("Who pays; default: the tenant's."),
		"limits":      limits(),
		"environments": schema.MapNestedAttribute{
			Required: true, MarkdownDescription: "`prod`, `test` and `sandbox`; at least one. What is not written has the default of the environment's name.",
			NestedObject: schema.NestedAttributeObject{Attributes: attributes{
				"models":        words("Default: every model routed for the tenant."),
				"limits":        limits(),
				"log":           text("`full`, or `usage`: the log leaves out user and feature."),
				"personal_keys": truth("Whether people may have keys of their own."),
				"max_key_life":  text("Duration such as `720h` from a key's creation to its end."),
				"required_tags": words("In addition to the default ones: `owner`, `cost_center`, `service`, `feature`, `user`."),
			}},
		},
	}
}

func accountSpec() attributes {
	return attributes{
		"owner":    needed("E-mail address of who answers for it."),
		"service":  text("What it is for; default: its name."),
		"priority": count("-10 to 10, default 0; higher leaves the queue first."),
		"limits":   limits(),
	}
}

func providerSpec() attributes {
	return attributes{
		"adapter":       needed("`openai`, `echo` or the name of a plugin."),
		"plugin":        truth("Run the adapter as a plugin process though it is linked in."),
		"base_url":      text("http or https; the adapter `echo` needs none."),
		"allow_private": truth("Allow loopback and private addresses."),
		"timeout":       text("Duration until the answer's first byte, default `120s`."),
		"options":       table("Options of the adapter."),
		credentialAttribute: schema.StringAttribute{
			Optional: true, WriteOnly: true, Sensitive: true,
			MarkdownDescription: "What the upstream wants as a credential. It is sealed to the cluster on this machine before it is sent, and is in no plan and no state. Needs OpenTofu or Terraform 1.11.",
		},
		versionAttribute: schema.StringAttribute{
			Optional: true, MarkdownDescription: "Any text. Change it when `credential_wo` is another one: a write-only value cannot be compared.",
			Validators: []validator.String{stringvalidator.AlsoRequires(path.MatchRoot(credentialAttribute))},
		},
		sealedAttribute: schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether the cluster holds a credential for it."},
	}
}

func routeSpec() attributes {
	return attributes{
		"targets": schema.ListNestedAttribute{
			Required: true, MarkdownDescription: "Tried in order.",
			NestedObject: schema.NestedAttributeObject{Attributes: attributes{
				"provider":   needed("Name of a provider of the tenant or of the platform."),
				"model":      needed("The provider's model."),
				"max_output": count("The model's ceiling of output tokens; default 4096."),
			}},
		},
	}
}

func priceBookSpec() attributes {
	price := func(doc string) schema.StringAttribute {
		return text(doc + " Decimal, for `per` tokens.")
	}
	return attributes{
		"currency": needed("ISO 4217 code."),
		"prices": schema.ListNestedAttribute{
			Required: true, MarkdownDescription: "One for each model of each provider.",
			NestedObject: schema.NestedAttributeObject{Attributes: attributes{
				"provider":    needed("Name of a provider."),
				"model":       needed("The provider's model."),
				"per":         schema.Int64Attribute{Required: true, MarkdownDescription: "Tokens that the prices are for, such as 1000000."},
				"input":       needed("Decimal, for `per` tokens."),
				"output":      needed("Decimal, for `per` tokens."),
				"cache_read":  price("Default: `input`."),
				"cache_write": price("Default: `input`."),
				"reasoning":   price("Default: `output`."),
			}},
		},
	}
}

func policySpec() attributes {
	return attributes{
		"environments":  words("To whose requests and keys it applies; default: all."),
		"required_tags": words("Without which no request passes: `owner`, `cost_center`, `service`, `feature`, `user`."),
		"models":        words("No others may be named."),
		"endpoints":     words("No others may be used, such as `chat/completions`."),
		"limits":        limits(),
		"max_key_life":  text("Duration such as `720h` from a key's creation to its end."),
		"personal_keys": truth("`false` forbids them; `true` allows nothing."),
	}
}
