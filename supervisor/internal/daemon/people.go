package daemon

import (
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso"
)

// openPeople makes the side of the node that believes identity providers. There
// is none where the configuration names no issuer.
func (n *Node) openPeople() error {
	if len(n.cfg.Access.Issuers) == 0 {
		return nil
	}
	people, err := sso.New(sso.Config{
		Issuers: n.cfg.Access.Issuers, Metrics: n.metrics, Log: n.log.Named("sso"),
		Exists: func(id bulkhead.TenantID) bool { _, ok := n.cluster.State().Tenant(id); return ok },
	})
	n.people = people
	return err
}

// adminPeople is admin.People; a nil *sso.People must not become one.
func (n *Node) adminPeople() admin.People {
	if n.people == nil {
		return nil
	}
	return n.people
}

// signIn is what the command line needs to know before anybody is signed in.
func signIn(a configs.Access) wire.SignIn {
	var out wire.SignIn
	for _, i := range a.Issuers {
		if len(i.Audiences.Admin) == 0 {
			continue // for the data plane only
		}
		p := wire.SignInProvider{
			Name: i.Issuer, Issuer: i.Issuer, ClientID: i.ClientID, Scopes: i.Scopes, DeviceFlow: true,
			UseIDToken: slices.Contains(i.Audiences.Admin, i.ClientID),
		}
		if !p.UseIDToken {
			p.Audience = i.Audiences.Admin[0]
		}
		out.Providers = append(out.Providers, p)
	}
	return out
}
