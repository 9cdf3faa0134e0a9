package admin

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// personalLife is how long a personal key lives when nobody says.
const personalLife = 8 * time.Hour

// wanted makes the key that the body asks for, within what the environment and
// the policies allow. What has no place (no such project, account, ...) is left
// to the state machine.
func wanted(v *state.View, who access.Principal, b *wire.CreateKey, now time.Time) (command.Key, error) {
	k := command.Key{
		Tenant: b.Tenant, Project: b.Project, Env: b.Env, Account: b.ServiceAccount, Owner: ownerOf(who, b),
		Models: b.Models, Endpoints: b.Endpoints,
		Label: b.Label, Service: b.Service, Personal: b.Personal, CreatedBy: who.Name(),
	}
	if err := checkPeople(who, b, k.Owner); err != nil {
		return k, err
	}
	for field, text := range map[string]string{"label": b.Label, "service": b.Service} {
		if !readable(text) {
			return k, invalid(field, "is no line of text")
		}
	}
	if k.Service == "" {
		k.Service = serviceOf(v, &k)
	}
	var err error
	if k.Sources, err = parseSources(b.Sources); err != nil {
		return k, err
	}
	end, err := endOf(settingsOf(v, b.Tenant, b.Project, b.Env), b, now)
	if !end.IsZero() {
		k.ExpiresAt = end.UnixMilli()
	}
	return k, err
}

// ownerOf is who answers for the key: empty means the account's owner.
func ownerOf(who access.Principal, b *wire.CreateKey) string {
	if b.Personal && b.Owner == "" {
		return who.Email
	}
	return b.Owner
}

// checkPeople keeps personal keys personal: nobody makes one in the name of
// another person. The node's token is no person and has to name one.
func checkPeople(who access.Principal, b *wire.CreateKey, owner string) error {
	if owner != "" && !manifest.ValidOwner(owner) {
		return invalid("owner", "is no e-mail address")
	}
	if !b.Personal {
		return nil
	}
	switch {
	case b.Env != "test" && b.Env != "sandbox":
		return invalid("env", "of a personal key is test or sandbox; production is for service accounts")
	case owner == "":
		return invalid("owner", "of a personal key is who is signed in; the node's token is nobody, so name the person")
	case who.Email != "" && !strings.EqualFold(owner, who.Email):
		return invalid("owner", "of a personal key is who is signed in; nobody makes one for somebody else")
	}
	return nil
}

func readable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func serviceOf(v *state.View, k *command.Key) string {
	o, _, ok := v.Object(manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: k.Tenant, Project: k.Project, Name: k.Account})
	if !ok || o.ServiceAccountSpec == nil {
		return ""
	}
	return o.ServiceAccountSpec.ServiceName(o.Name)
}

// settingsOf is what is in force for keys of an environment: its own settings
// under the platform's and the tenant's policies.
func settingsOf(v *state.View, tenant bulkhead.TenantID, project, env string) manifest.Settings {
	var e manifest.Environment
	o, _, ok := v.Object(manifest.Ref{Kind: manifest.KindProject, Tenant: tenant, Name: project})
	if ok && o.ProjectSpec != nil {
		e = o.ProjectSpec.Environments[env]
	}
	s := e.Effective(env)
	for _, o := range slices.Concat(v.ObjectsOf(manifest.KindPolicy, ""), v.ObjectsOf(manifest.KindPolicy, tenant)) {
		s = s.Under(o.PolicySpec)
	}
	return s
}

// endOf is when the key ends; zero is never. Who asks for more than may be is
// refused: a key that ends before its owner thinks breaks at night.
func endOf(s manifest.Settings, b *wire.CreateKey, now time.Time) (time.Time, error) {
	if b.Personal && !s.PersonalKeys {
		return time.Time{}, noPersonal(s.Env)
	}
	longest := s.KeyLife(b.Personal)
	if b.ExpiresAt.IsZero() {
		life := longest
		if b.Personal {
			life = min(personalLife, longest)
		}
		if life == 0 {
			return time.Time{}, nil
		}
		return now.Add(life), nil
	}
	// A moment more, for a clock that is ahead: whoever asks for exactly as long
	// as may be gets it.
	if longest > 0 && b.ExpiresAt.After(now.Add(longest+time.Minute)) {
		return time.Time{}, invalid("expires_at", fmt.Sprintf("is too late: here a key lives at most %s", longest))
	}
	if longest > 0 && b.ExpiresAt.After(now.Add(longest)) {
		return now.Add(longest), nil
	}
	return b.ExpiresAt, nil
}

// mayRotate keeps personal keys personal, as checkPeople does.
func mayRotate(who access.Principal, old *command.Key) error {
	if old.Personal && who.Email != "" && !strings.EqualFold(old.Owner, who.Email) {
		return coded(http.StatusForbidden, "permission_denied", "a personal key is rotated by the person whose it is")
	}
	return nil
}

// successorLife is how long the successor of a key lives; 0 = for ever.
func successorLife(s manifest.Settings, old *command.Key) (time.Duration, error) {
	if old.Personal && !s.PersonalKeys {
		return 0, noPersonal(s.Env)
	}
	longest := s.KeyLife(old.Personal)
	if old.ExpiresAt == 0 {
		return longest, nil
	}
	life := time.Duration(old.ExpiresAt-old.CreatedAt) * time.Millisecond
	if longest > 0 {
		life = min(life, longest)
	}
	return life, nil
}

func noPersonal(env string) error {
	return coded(http.StatusForbidden, "personal_keys_forbidden", "personal keys are not allowed in this environment: "+env)
}

// parseSources answers the CIDRs in their one form, each once.
func parseSources(list []string) ([]string, error) {
	var out []string
	for _, s := range list {
		p, err := parseSource(strings.TrimSpace(s))
		if err != nil {
			return nil, invalid("sources", fmt.Sprintf("%.60q is no address such as 192.0.2.7 and no CIDR such as 10.0.0.0/8", s))
		}
		if text := p.Masked().String(); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out, nil
}

func parseSource(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR", s)
	}
	return p, nil
}
