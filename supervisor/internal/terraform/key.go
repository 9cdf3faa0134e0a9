package terraform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// keyResource is bulkhead_key.
type keyResource struct{ connected }

var (
	_ resource.ResourceWithConfigure   = (*keyResource)(nil)
	_ resource.ResourceWithImportState = (*keyResource)(nil)
	_ resource.ResourceWithModifyPlan  = (*keyResource)(nil)
)

// Metadata implements resource.Resource.
func (r *keyResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_key"
}

// Create implements resource.Resource.
func (r *keyResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m keyModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	body := m.creation(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	var done wire.KeyCreated
	if err := r.client.do(ctx, http.MethodPost, "/keys", nil, body, &done); err != nil {
		resp.Diagnostics.Append(diagnose("Cannot create a key", err, keyField)...)
		return
	}
	m.shown(done)
	m.read(r.made(ctx, done.ID, &m, &resp.Diagnostics))
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// creation is what the plan asks for.
func (m *keyModel) creation(ctx context.Context, ds *diag.Diagnostics) wire.CreateKey {
	b := wire.CreateKey{
		Tenant: bulkhead.TenantID(m.Tenant.ValueString()), Project: m.Project.ValueString(), Env: m.Env.ValueString(),
		ServiceAccount: m.ServiceAccount.ValueString(), Owner: m.Owner.ValueString(), Service: m.Service.ValueString(), Label: m.Label.ValueString(),
		WrapSeconds: duration("wrap_for", m.WrapFor, ds),
	}
	ds.Append(m.Models.ElementsAs(ctx, &b.Models, false)...)
	ds.Append(m.Endpoints.ElementsAs(ctx, &b.Endpoints, false)...)
	ds.Append(m.Sources.ElementsAs(ctx, &b.Sources, false)...)
	if s := m.ExpiresAt.ValueString(); s != "" {
		var err error
		if b.ExpiresAt, err = time.Parse(time.RFC3339, s); err != nil {
			ds.AddAttributeError(path.Root("expires_at"), "No time", fmt.Sprintf("%q: want RFC 3339, such as 2027-01-31T00:00:00Z", s))
		}
	}
	return b
}

func duration(name string, v types.String, ds *diag.Diagnostics) (seconds int64) {
	if v.IsNull() {
		return 0
	}
	d, err := time.ParseDuration(v.ValueString())
	if err != nil || d%time.Second != 0 {
		ds.AddAttributeError(path.Root(name), "No duration", fmt.Sprintf("%q: want whole seconds, such as 90s or 24h", v.ValueString()))
	}
	return int64(d / time.Second)
}

// shown keeps what is shown this once.
func (m *keyModel) shown(k wire.KeyCreated) {
	m.ID, m.Key, m.LinkToken = types.StringValue(string(k.ID)), orNull(k.Key), orNull(k.LinkToken)
	m.LinkExpiresAt = stamp(k.ExpiresAt)
	m.KeyExpiresAt = stamp(k.KeyExpiresAt)
}

// made reads a key that was just made. When it cannot, the key must not be lost
// with the error: what is not known is then what the next refresh finds.
func (r *keyResource) made(ctx context.Context, id bulkhead.KeyID, m *keyModel, ds *diag.Diagnostics) wire.Key {
	k, found, err := r.find(ctx, m.Tenant.ValueString(), string(id))
	if err == nil && found {
		return k
	}
	if err == nil {
		err = errors.New("it is not in the list of keys")
	}
	ds.AddWarning("The key "+string(id)+" was made but could not be read", err.Error())
	return wire.Key{Owner: m.Owner.ValueString(), Service: m.Service.ValueString()}
}

// read takes over what the server filled in.
func (m *keyModel) read(k wire.Key) {
	m.Owner, m.Service = orNull(k.Owner), orNull(k.Service)
	m.Display, m.CreatedAt = orNull(k.Display), stamp(k.CreatedAt)
}

// find looks a key up; tenant "" looks in all that the token may see.
func (r *keyResource) find(ctx context.Context, tenant, id string) (wire.Key, bool, error) {
	keys, err := r.list(ctx, tenant)
	if err != nil {
		return wire.Key{}, false, err
	}
	k, ok := keys[bulkhead.KeyID(id)]
	return k, ok, nil
}

func (r *keyResource) list(ctx context.Context, tenant string) (map[bulkhead.KeyID]wire.Key, error) {
	var list wire.Keys
	q := url.Values{}
	if tenant != "" {
		q.Set("tenant", tenant)
	}
	if err := r.client.do(ctx, http.MethodGet, "/keys", q, nil, &list); err != nil {
		return nil, err
	}
	out := make(map[bulkhead.KeyID]wire.Key, len(list.Keys))
	for _, k := range list.Keys {
		out[k.ID] = k
	}
	return out, nil
}

// Read implements resource.Resource. A key that works no more is gone: the next
// plan makes another. Its scopes cannot change, so the state's way to write them
// stays.
func (r *keyResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m keyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	k, found, err := r.find(ctx, m.Tenant.ValueString(), m.ID.ValueString())
	if err != nil && statusOf(err) != http.StatusNotFound {
		resp.Diagnostics.AddError("Cannot read key "+m.ID.ValueString(), err.Error())
		return
	}
	if !found || !valid(k, time.Now()) {
		resp.State.RemoveResource(ctx)
		return
	}
	if m.Tenant.IsNull() {
		resp.Diagnostics.Append(m.imported(ctx, k)...)
	}
	if k.Successor != "" {
		resp.Diagnostics.AddWarning(fmt.Sprintf("Key %s was rotated elsewhere", k.ID),
			fmt.Sprintf("Its successor is %s. When this one ends, the next plan makes a third; to take over the successor, remove this one from the state and import it.", k.Successor))
	}
	m.read(k)
	m.KeyExpiresAt = stamp(k.ExpiresAt)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func valid(k wire.Key, now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(now))
}

// imported fills in what an import, which knows only the id, does not.
func (m *keyModel) imported(ctx context.Context, k wire.Key) (ds diag.Diagnostics) {
	m.Tenant, m.Project, m.Env = types.StringValue(string(k.Tenant)), types.StringValue(k.Project), types.StringValue(k.Env)
	m.ServiceAccount, m.Label = types.StringValue(k.ServiceAccount), orNull(k.Label)
	for _, set := range []struct {
		to   *types.Set
		from []string
	}{{&m.Models, k.Models}, {&m.Endpoints, k.Endpoints}, {&m.Sources, k.Sources}} {
		if *set.to = types.SetNull(types.StringType); len(set.from) > 0 {
			values := make([]attr.Value, len(set.from))
			for i, s := range set.from {
				values[i] = types.StringValue(s)
			}
			v, bad := types.SetValue(types.StringType, values)
			*set.to, ds = v, append(ds, bad...)
		}
	}
	return ds
}

// Update implements resource.Resource: it rotates, or only takes over what counts
// at the next rotation.
func (r *keyResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var had, m keyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &had)...)
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	body := wire.RotateKey{WrapSeconds: duration("wrap_for", m.WrapFor, &resp.Diagnostics)}
	if !m.Overlap.IsNull() {
		seconds := duration("overlap", m.Overlap, &resp.Diagnostics)
		body.OverlapSeconds = &seconds
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if rotates(had, m) {
		var done wire.KeyCreated
		if err := r.client.do(ctx, http.MethodPost, "/keys/"+url.PathEscape(had.ID.ValueString())+"/rotate", nil, body, &done); err != nil {
			resp.Diagnostics.Append(diagnose("Cannot rotate key "+had.ID.ValueString(), err, keyField)...)
			return
		}
		m.shown(done)
		m.read(r.made(ctx, done.ID, &m, &resp.Diagnostics))
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete implements resource.Resource. It ends the key and those before it that
// an overlap keeps valid.
func (r *keyResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m keyModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	keys, err := r.list(ctx, m.Tenant.ValueString())
	if err != nil && statusOf(err) != http.StatusNotFound {
		resp.Diagnostics.AddError("Cannot find key "+m.ID.ValueString(), err.Error())
		return
	}
	for k, ok := keys[bulkhead.KeyID(m.ID.ValueString())]; ok; k, ok = keys[k.Predecessor] {
		delete(keys, k.ID) // a circle would never end
		if !k.RevokedAt.IsZero() {
			continue
		}
		err := r.client.do(ctx, http.MethodPost, "/keys/"+url.PathEscape(string(k.ID))+"/revoke", nil, nil, nil)
		if err != nil && statusOf(err) != http.StatusNotFound {
			resp.Diagnostics.AddError("Cannot revoke key "+string(k.ID), err.Error())
			return
		}
	}
}

// ImportState implements resource.ResourceWithImportState.
func (r *keyResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	resource.ImportStatePassthroughID(ctx, path.Root(idAttribute), req, resp)
}

// keyField finds the attribute of a field of the request.
func keyField(location string) (path.Path, bool) {
	field := map[string]string{"wrap_seconds": "wrap_for", "overlap_seconds": "overlap", "account": "service_account"}
	name := strings.TrimPrefix(location, "body.")
	if other, ok := field[name]; ok {
		name = other
	}
	known := tftypes.Object{AttributeTypes: map[string]tftypes.Type{}}
	for _, name := range []string{"tenant", "project", "env", "service_account", "owner", "service", "label", "expires_at", "wrap_for", "overlap"} {
		known.AttributeTypes[name] = tftypes.String
	}
	for _, name := range []string{"models", "endpoints", "sources"} {
		known.AttributeTypes[name] = tftypes.Set{ElementType: tftypes.String}
	}
	return attributeAt(known, name)
}

func orNull(s string) types.String {
	if s == "" {
		return types.StringNull()
	}
	return types.StringValue(s)
}

// stamp writes a time as the API does; null for none.
func stamp(t time.Time) types.String {
	if t.IsZero() {
		return types.StringNull()
	}
	return types.StringValue(t.UTC().Format(time.RFC3339Nano))
}
