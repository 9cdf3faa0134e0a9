package terraform

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// keyModel is a key in configuration, plan and state.
type keyModel struct {
	ID             types.String `tfsdk:"id"`
	Tenant         types.String `tfsdk:"tenant"`
	Project        types.String `tfsdk:"project"`
	Env            types.String `tfsdk:"env"`
	ServiceAccount types.String `tfsdk:"service_account"`
	Owner          types.String `tfsdk:"owner"`
	Service        types.String `tfsdk:"service"`
	Label          types.String `tfsdk:"label"`
	Models         types.Set    `tfsdk:"models"`
	Endpoints      types.Set    `tfsdk:"endpoints"`
	Sources        types.Set    `tfsdk:"sources"`
	ExpiresAt      types.String `tfsdk:"expires_at"`
	WrapFor        types.String `tfsdk:"wrap_for"`
	Overlap        types.String `tfsdk:"overlap"`
	RotateWhen     types.Map    `tfsdk:"rotate_when"`
	Key            types.String `tfsdk:"key"`
	LinkToken      types.String `tfsdk:"link_token"`
	LinkExpiresAt  types.String `tfsdk:"link_expires_at"`
	KeyExpiresAt   types.String `tfsdk:"key_expires_at"`
	Display        types.String `tfsdk:"display"`
	CreatedAt      types.String `tfsdk:"created_at"`
}

const keyDoc = "A key of a service account. It is shown once, by the API to this provider, so it is **in the state, in clear**: " +
	"encrypt the state, or set `wrap_for`, and only the token of a link is in it, which gives the key away once and for so long. " +
	"What a key may do is fixed when it is made: another scope is another key. Destroying it ends it before the destroy returns. " +
	"People's own keys are not made here but by the person, with `bulkhead key create --personal`."

func (r *keyResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{MarkdownDescription: keyDoc, Attributes: attributes{
		"id":              made("Its id, `key_...`; a rotation makes another."),
		"tenant":          identity("Name of the tenant.", true),
		"project":         identity("Name of the project.", true),
		"env":             identity("`prod`, `test` or `sandbox`.", true),
		"service_account": identity("Name of the service account.", true),
		"owner":           defaulted("E-mail address of who answers for it; default: the service account's owner."),
		"service":         defaulted("What it is for; default: the service account's."),
		"label":           identity("For people.", false),
		"models":          fixed("Default: what the environment allows."),
		"endpoints":       fixed("Such as `chat/completions`; default: all."),
		"sources":         fixed("Addresses and CIDRs that it may be used from; default: all."),
		"expires_at": schema.StringAttribute{
			Optional: true, MarkdownDescription: "RFC 3339; default: the longest that policies allow, else never.",
			PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplaceIf(otherEnd, "another end is another key", "another end is another key")},
		},
		"wrap_for":        text("Duration such as `24h`, one minute to a week: hand the key over by a link that works once and for so long. Counts when the key is made or rotated."),
		"overlap":         text("Duration that the old key stays valid after a rotation; `0s` ends it at once; default `24h`."),
		"rotate_when":     table("Any texts. When one of them is another, the key is rotated: a successor with the same scopes is made, and the old one ends after `overlap`."),
		"key":             hidden("The key; null with `wrap_for` and after an import."),
		"link_token":      hidden("With `wrap_for`: what `bulkhead key unwrap` takes, once."),
		"link_expires_at": made("When the link ends."),
		"key_expires_at":  made("When the key ends; null: never."),
		"display":         made("Prefix and last four characters, to recognise it by."),
		"created_at":      made("When it was made."),
	}}
}

// made is what a key gets when it is made, and keeps until it is rotated: see
// ModifyPlan.
func made(doc string) schema.StringAttribute {
	return schema.StringAttribute{Computed: true, MarkdownDescription: doc}
}

func hidden(doc string) schema.StringAttribute {
	return schema.StringAttribute{Computed: true, Sensitive: true, MarkdownDescription: doc}
}

func defaulted(doc string) schema.StringAttribute {
	return schema.StringAttribute{
		Optional: true, Computed: true, MarkdownDescription: doc,
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown(), stringplanmodifier.RequiresReplace()},
	}
}

func fixed(doc string) schema.SetAttribute {
	a := words(doc)
	a.PlanModifiers = []planmodifier.Set{setplanmodifier.RequiresReplace()}
	return a
}

// otherEnd compares as times what was written in different zones; an imported key
// has the end that it was made with.
func otherEnd(ctx context.Context, req planmodifier.StringRequest, resp *stringplanmodifier.RequiresReplaceIfFuncResponse) {
	was := req.StateValue
	if was.IsNull() {
		resp.Diagnostics.Append(req.State.GetAttribute(ctx, path.Root("key_expires_at"), &was)...)
	}
	a, errA := time.Parse(time.RFC3339, was.ValueString())
	b, errB := time.Parse(time.RFC3339, req.PlanValue.ValueString())
	resp.RequiresReplace = errA != nil || errB != nil || !a.Equal(b)
}

// ModifyPlan implements resource.ResourceWithModifyPlan: what a key got when it
// was made is kept, unless the plan rotates it.
func (r *keyResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.State.Raw.IsNull() || req.Plan.Raw.IsNull() {
		return
	}
	var had, want keyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &had)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &want)...)
	if resp.Diagnostics.HasError() || len(resp.RequiresReplace) > 0 || rotates(had, want) {
		return
	}
	want.ID, want.Key, want.LinkToken, want.LinkExpiresAt = had.ID, had.Key, had.LinkToken, had.LinkExpiresAt
	want.KeyExpiresAt, want.Display, want.CreatedAt = had.KeyExpiresAt, had.Display, had.CreatedAt
	resp.Diagnostics.Append(resp.Plan.Set(ctx, want)...)
}

// rotates reports whether the plan is another reason to rotate than the state's.
func rotates(had, want keyModel) bool { return !had.RotateWhen.Equal(want.RotateWhen) }
