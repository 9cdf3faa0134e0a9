package terraform

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// objectResource is the resource of every kind of desired state.
type objectResource struct {
	kind
	connected
}

var (
	_ resource.ResourceWithConfigure   = (*objectResource)(nil)
	_ resource.ResourceWithImportState = (*objectResource)(nil)
	_ resource.ResourceWithModifyPlan  = (*objectResource)(nil)
)

// connected is the part of a resource that the provider's configuration gives.
type connected struct{ client *client }

// Configure implements resource.ResourceWithConfigure.
func (c *connected) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	if got, ok := req.ProviderData.(*client); ok { // nil while a configuration is only checked
		c.client = got
	}
}

// Metadata implements resource.Resource.
func (r *objectResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + r.resource
}

// Schema implements resource.Resource.
func (r *objectResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = r.kind.schema()
}

// wants is the type of the resource's values.
func (r *objectResource) wants(ctx context.Context) tftypes.Object {
	return r.kind.schema().Type().TerraformType(ctx).(tftypes.Object)
}

// Create implements resource.Resource. It refuses an object that exists: applying
// over it would take it from whoever manages it.
func (r *objectResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	ref, err := r.ref(req.Plan.Raw)
	if err == nil {
		var exists bool
		if _, exists, err = r.find(ctx, ref); exists {
			resp.Diagnostics.AddError(fmt.Sprintf("%s exists already", ref),
				fmt.Sprintf("Import it to manage it here: tofu import bulkhead_%s.NAME %s", r.resource, id(ref)))
			return
		}
	}
	if err != nil && statusOf(err) != http.StatusNotFound { // its tenant is to be created, or apply says that it is missing
		resp.Diagnostics.AddError("Cannot look for "+ref.String(), err.Error())
		return
	}
	r.apply(ctx, "create", req.Plan.Raw, req.Config.Raw, tftypes.Value{}, &resp.State, &resp.Diagnostics)
}

// Update implements resource.Resource.
func (r *objectResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	r.apply(ctx, "update", req.Plan.Raw, req.Config.Raw, req.State.Raw, &resp.State, &resp.Diagnostics)
}

// apply puts the plan in force and makes it the state: the server has accepted
// exactly that.
func (r *objectResource) apply(ctx context.Context, verb string, plan, config, before tftypes.Value, state *tfsdk.State, ds *diag.Diagnostics) {
	o, err := r.desired(plan)
	if err == nil {
		err = r.sealCredential(ctx, &o, config)
	}
	if err != nil {
		ds.AddError(fmt.Sprintf("Cannot %s %s", verb, o.Ref), err.Error())
		return
	}
	body := wire.Apply{Objects: []manifest.Object{o}}
	if err := r.client.do(ctx, http.MethodPost, "/apply", nil, body, nil); err != nil {
		ds.Append(diagnose(fmt.Sprintf("Cannot %s %s", verb, o.Ref), err, locator(o.Ref, r.wants(ctx)))...)
		return
	}
	fields := maps.Clone(fieldsOf(plan))
	fields[idAttribute] = tftypes.NewValue(tftypes.String, id(o.Ref))
	if o.ProviderSpec != nil {
		fields[sealedAttribute] = tftypes.NewValue(tftypes.Bool, o.ProviderSpec.Credential != nil || keepsCredential(plan, before))
	}
	state.Raw = tftypes.NewValue(plan.Type(), fields)
}

// Read implements resource.Resource.
func (r *objectResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	ref, err := r.ref(req.State.Raw)
	var o manifest.Object
	exists := false
	if err == nil {
		o, exists, err = r.find(ctx, ref)
	}
	switch {
	case statusOf(err) == http.StatusNotFound, err == nil && !exists:
		resp.State.RemoveResource(ctx)
		return
	case err == nil:
		resp.State.Raw, err = r.state(o, r.wants(ctx), req.State.Raw)
	}
	if err != nil {
		resp.Diagnostics.AddError("Cannot read "+ref.String(), err.Error())
	}
}

// find asks for one object; 404 says that its tenant is not there, or not for
// this token.
func (r *objectResource) find(ctx context.Context, ref manifest.Ref) (manifest.Object, bool, error) {
	var list wire.Objects
	if err := r.client.do(ctx, http.MethodGet, "/objects", query(ref), nil, &list); err != nil {
		return manifest.Object{}, false, err
	}
	for _, o := range list.Objects {
		if o.Ref == ref {
			return o, true, nil
		}
	}
	return manifest.Object{}, false, nil
}

func query(ref manifest.Ref) url.Values {
	q := url.Values{"kind": {string(ref.Kind)}, "name": {ref.Name}}
	if ref.Tenant != "" {
		q.Set("tenant", string(ref.Tenant))
	}
	if ref.Project != "" {
		q.Set("project", ref.Project)
	}
	return q
}

// Delete implements resource.Resource. What is gone already is fine.
func (r *objectResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	ref, err := r.ref(req.State.Raw)
	if err == nil {
		err = r.client.do(ctx, http.MethodDelete, "/objects", query(ref), nil, nil)
	}
	switch {
	case err == nil, statusOf(err) == http.StatusNotFound:
	case codeOf(err) == "use_tenant_delete":
		resp.Diagnostics.AddError(fmt.Sprintf("%s has data: it is not destroyed from here", ref), fmt.Sprintf(
			"It would go without anybody having said why, and without proof that its data is unreadable. Run\n\n"+
				"  bulkhead tenant delete %s --reason \"...\"\n\n"+
				"and then plan again: what is gone leaves the state. The server said: %s", ref.Name, err))
	default:
		resp.Diagnostics.Append(diagnose("Cannot delete "+ref.String(), err, func(string) (path.Path, bool) { return path.Empty(), false })...)
	}
}

// ImportState implements resource.ResourceWithImportState.
func (r *objectResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	ref, err := r.parseID(req.ID)
	if err != nil {
		resp.Diagnostics.AddError("Cannot import", err.Error())
		return
	}
	for name, s := range map[string]string{
		idAttribute: id(ref), nameAttribute: ref.Name, tenantAttribute: string(ref.Tenant), projectAttribute: ref.Project,
	} {
		if s != "" {
			resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(name), s)...)
		}
	}
}
