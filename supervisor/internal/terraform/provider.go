package terraform

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Address is where a registry has the provider.
const Address = "registry.opentofu.org/bulkhead-ai/bulkhead"

// Config is what a program gives the provider.
type Config struct {
	Version string              // of the program
	Getenv  func(string) string // default os.Getenv
}

// New makes the provider.
func New(cfg Config) provider.Provider {
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	return &bulkheadProvider{cfg}
}

type bulkheadProvider struct{ cfg Config }

// settings are the provider's attributes.
type settings struct {
	Addrs     types.List   `tfsdk:"addrs"`
	Token     types.String `tfsdk:"token"`
	TokenFile types.String `tfsdk:"token_file"`
	CAFile    types.String `tfsdk:"ca_file"`
	Reason    types.String `tfsdk:"reason"`
}

// Metadata implements provider.Provider.
func (p *bulkheadProvider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = "bulkhead", p.cfg.Version
}

// Schema implements provider.Provider.
func (p *bulkheadProvider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Bulkhead's desired state. Every resource is an object of the admin API, with the names that `bulkhead apply` has.",
		Attributes: map[string]schema.Attribute{
			"addrs": schema.ListAttribute{
				Optional: true, ElementType: types.StringType,
				MarkdownDescription: "Admin addresses, tried in turn; default: `BULKHEAD_ADDR` (comma-separated), else " + defaultAddr + ".",
			},
			"token": schema.StringAttribute{
				Optional: true, Sensitive: true,
				MarkdownDescription: "The node's admin token or a person's access token; default: `BULKHEAD_TOKEN`.",
				Validators:          []validator.String{stringvalidator.ConflictsWith(path.MatchRoot("token_file"))},
			},
			"token_file": schema.StringAttribute{Optional: true, MarkdownDescription: "File with the token, of mode 0600."},
			"ca_file":    schema.StringAttribute{Optional: true, MarkdownDescription: "PEM file of certificates to trust; default: the system's."},
			"reason":     schema.StringAttribute{Optional: true, MarkdownDescription: "Why, for the audit trail, of everything that is done."},
		},
	}
}

// Configure implements provider.Provider.
func (p *bulkheadProvider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var s settings
	resp.Diagnostics.Append(req.Config.Get(ctx, &s)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if !req.Config.Raw.IsFullyKnown() {
		resp.Diagnostics.AddError("The provider's configuration is not known yet",
			"It depends on something that is only known after an apply. Apply that first (-target), or set BULKHEAD_ADDR and BULKHEAD_TOKEN.")
		return
	}
	addrs, err := p.addrs(ctx, s)
	if err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("addrs"), "No admin address", err.Error())
		return
	}
	token, err := p.token(s)
	if err != nil {
		resp.Diagnostics.AddError("No admin token", err.Error())
		return
	}
	c, err := newClient(addrs, token, s.Reason.ValueString(), s.CAFile.ValueString())
	if err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("ca_file"), "No certificates", err.Error())
		return
	}
	resp.ResourceData = c
}

func (p *bulkheadProvider) addrs(ctx context.Context, s settings) ([]string, error) {
	var list []string
	if ds := s.Addrs.ElementsAs(ctx, &list, false); ds.HasError() {
		return nil, errors.New(ds.Errors()[0].Detail())
	}
	if len(list) == 0 {
		list = strings.FieldsFunc(p.cfg.Getenv("BULKHEAD_ADDR"), func(r rune) bool { return r == ',' })
	}
	if len(list) == 0 {
		list = []string{defaultAddr}
	}
	for i := range list {
		var err error
		if list[i], err = parseAddr(list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (p *bulkheadProvider) token(s settings) (string, error) {
	if file := s.TokenFile.ValueString(); file != "" {
		return wire.ReadToken(file)
	}
	token := s.Token.ValueString()
	if token == "" {
		token = strings.TrimSpace(p.cfg.Getenv("BULKHEAD_TOKEN"))
	}
	if token == "" {
		return "", errors.New("set BULKHEAD_TOKEN, token or token_file")
	}
	return token, nil
}

// Resources implements provider.Provider.
func (p *bulkheadProvider) Resources(context.Context) []func() resource.Resource {
	out := []func() resource.Resource{func() resource.Resource { return new(keyResource) }}
	for _, k := range kinds() {
		out = append(out, func() resource.Resource { return &objectResource{kind: k} })
	}
	return out
}

// DataSources implements provider.Provider. There are none: what another
// configuration made is known by its name.
func (p *bulkheadProvider) DataSources(context.Context) []func() datasource.DataSource { return nil }
