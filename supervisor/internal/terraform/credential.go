package terraform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// maxCredential bounds a provider's credential in bytes, as bulkhead apply does.
const maxCredential = 48 << 10

// sealCredential puts the credential that the configuration names into the object,
// sealed to the cluster. It goes with every write: the server keeps the stored one
// when it is the same.
func (r *objectResource) sealCredential(ctx context.Context, o *manifest.Object, config tftypes.Value) error {
	if o.ProviderSpec == nil {
		return nil
	}
	f := fieldsOf(config)[credentialAttribute]
	if f.IsNull() {
		return nil
	}
	var secret string
	if err := f.As(&secret); err != nil {
		return fmt.Errorf("%s: %w", credentialAttribute, err)
	}
	switch {
	case secret == "":
		return errors.New(credentialAttribute + " is empty; leave it out, or null, for an upstream that wants none")
	case len(secret) > maxCredential:
		return fmt.Errorf("%s holds more than %d bytes", credentialAttribute, maxCredential)
	case strings.ContainsAny(secret, "\r\n\x00"):
		return errors.New(credentialAttribute + " holds more than one line; a header cannot carry that")
	}
	var key wire.SealingKey
	if err := r.client.do(ctx, http.MethodGet, "/sealing-key", nil, nil, &key); err != nil {
		return err
	}
	sealed, err := seal.Seal(key.PublicKey, seal.CredentialContext(o.Tenant, o.Name), []byte(secret))
	if err != nil {
		return fmt.Errorf("seal the credential: %w", err)
	}
	o.ProviderSpec.Credential = &manifest.Credential{Sealed: sealed}
	return nil
}

// ModifyPlan implements resource.ResourceWithModifyPlan. It plans whether the
// cluster will hold a credential, so that one that somebody removed is a change
// though no plan may hold the credential itself.
func (r *objectResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.kind.kind != manifest.KindProvider || req.Plan.Raw.IsNull() {
		return
	}
	credential := fieldsOf(req.Config.Raw)[credentialAttribute]
	held := types.BoolValue(true)
	switch {
	case !credential.IsKnown():
		held = types.BoolUnknown()
	case credential.IsNull():
		held = types.BoolValue(keepsCredential(req.Plan.Raw, req.State.Raw))
	}
	resp.Diagnostics.Append(resp.Plan.SetAttribute(ctx, path.Root(sealedAttribute), held)...)
}

// keepsCredential reports whether the cluster keeps the credential that it has: it
// does as long as a plan names no other address, which nobody gave it to.
func keepsCredential(plan, state tftypes.Value) bool {
	before, after := fieldsOf(state), fieldsOf(plan)
	held := before[sealedAttribute]
	var is bool
	return held.Type() != nil && !held.IsNull() && held.As(&is) == nil && is &&
		after["base_url"].Equal(before["base_url"]) && after[nameAttribute].Equal(before[nameAttribute]) && after[tenantAttribute].Equal(before[tenantAttribute])
}
