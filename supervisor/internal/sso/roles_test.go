package sso

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso/ssotest"
)

type of = map[bulkhead.TenantID]access.Role

// TestRoles: what a token's claims make of a person, under the rules of conf.
func TestRoles(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	groups := func(g ...string) object { return object{"groups": g} }
	for name, row := range map[string]struct {
		claims   object
		platform []access.Role
		tenants  of
	}{
		"nobody":                        {object{}, nil, of{}},
		"unknown group":                 {groups("admins2", "Admins", "admin", ""), nil, of{}},
		"platform admin":                {groups("admins"), []access.Role{access.PlatformAdmin}, of{}},
		"group as text":                 {object{"groups": "admins"}, []access.Role{access.PlatformAdmin}, of{}},
		"groups in one text":            {object{"groups": "x admins,admins"}, nil, of{}},
		"groups of something else":      {object{"groups": object{"admins": true}}, nil, of{}},
		"groups within groups":          {object{"groups": []any{[]string{"admins"}, 7, nil}}, nil, of{}},
		"role in another claim":         {object{"roles": []string{"platform-admin"}, "role": "platform-admin"}, nil, of{}},
		"both of the platform":          {groups("auditors", "admins", "admins"), []access.Role{access.PlatformAdmin, access.Auditor}, of{}},
		"first rule of a tenant":        {groups("acme-dev", "acme-leads"), nil, of{"acme": access.Owner}},
		"an earlier rule that is less":  {groups("acme-leads", "acme-audit"), nil, of{"acme": access.Auditor}},
		"tenant that does not exist":    {groups("initech-dev"), nil, of{}},
		"claim names the tenant":        {object{"employee": true, "tenant": "globex"}, nil, of{"globex": access.User}},
		"claim as text":                 {object{"employee": "true", "tenant": "globex"}, nil, of{"globex": access.User}},
		"claim of another value":        {object{"employee": "yes", "tenant": "globex"}, nil, of{}},
		"claim names several":           {object{"employee": true, "tenant": []string{"globex", "initech", "acme"}}, nil, of{"globex": access.User, "acme": access.User}},
		"claim without a rule":          {object{"tenant": "globex"}, nil, of{}},
		"claim names no tenant":         {object{"employee": true, "tenant": "GLOBEX"}, nil, of{}},
		"claim beside a group":          {object{"employee": true, "tenant": "acme", "groups": []string{"acme-dev"}}, nil, of{"acme": access.PowerUser}},
		"claim does not take from rule": {object{"tenant": "globex", "groups": []string{"acme-dev"}}, nil, of{"acme": access.PowerUser}},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := people.Identify(t.Context(), p.Token("cli", row.claims))
			if err != nil || !slices.Equal(who.Platform, row.platform) || !maps.Equal(who.Tenants, row.tenants) || who.Content {
				t.Errorf("%+v, %v", who, err)
			}
		})
	}
}

// TestPlaces: where requests of people are booked, or that they may send none.
func TestPlaces(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	groups := func(g ...string) object { return object{"groups": g} }
	for name, row := range map[string]struct {
		claims object
		want   string // TENANT/PROJECT/ENV/ACCOUNT
	}{
		"nobody":                      {object{}, ""},
		"platform admin":              {groups("admins"), ""},
		"auditor of the platform":     {groups("auditors"), ""},
		"auditor of the tenant":       {groups("acme-audit"), ""},
		"group":                       {groups("acme-leads"), "acme/lab/prod/leads"},
		"without a group of its own":  {groups("acme-dev"), "acme/lab/test/people"},
		"by claim":                    {object{"employee": true, "tenant": "globex"}, "globex/desk/sandbox/people"},
		"claim of a missing tenant":   {object{"employee": true, "tenant": "initech"}, ""},
		"claim narrows":               {object{"groups": []string{"acme-dev"}, "employee": true, "tenant": "globex"}, "globex/desk/sandbox/people"},
		"claim of another tenant":     {object{"groups": []string{"acme-dev"}, "tenant": "globex"}, ""},
		"claim that cannot be a name": {object{"groups": []string{"acme-dev"}, "tenant": object{"id": "acme"}}, ""},
		"claim of the same":           {object{"groups": []string{"acme-dev"}, "tenant": "acme"}, "acme/lab/test/people"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := people.Person(t.Context(), p.Token("api", row.claims))
			if row.want == "" {
				if code(err) != "member_not_allowed" || bulkhead.AsError(err).Status() != 403 {
					t.Errorf("%+v, %v", m, err)
				}
				return
			}
			if got := strings.Join([]string{string(m.Tenant), m.Project, m.Env, m.Account}, "/"); err != nil || got != row.want {
				t.Errorf("%s, %v; want %s", got, err, row.want)
			}
		})
	}
}

// TestTenantsComeAndGo: a token that is remembered gives no role in a tenant that
// is gone, and one in a tenant that is new.
func TestTenantsComeAndGo(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	there := true
	people.cfg.Exists = func(bulkhead.TenantID) bool { return there }
	admin, data := p.Token("cli", object{"groups": []string{"acme-dev"}}), p.Token("api", object{"groups": []string{"acme-dev"}})
	for _, there = range []bool{true, false, true} {
		who, err := people.Identify(t.Context(), admin)
		if _, has := who.Tenants["acme"]; err != nil || has != there {
			t.Errorf("the tenant exists: %v; %+v, %v", there, who, err)
		}
		if _, err := people.Person(t.Context(), data); (err == nil) != there {
			t.Errorf("the tenant exists: %v; %v", there, err)
		}
	}
}

// TestEmail: an address counts only if the issuer vouches for it, and never breaks
// a line.
func TestEmail(t *testing.T) {
	p := ssotest.New(t, issuerURL)
	people := newPeople(t, p)
	for name, row := range map[string]struct {
		claims      object
		want, owner string
	}{
		"verified":          {object{}, "ann@bank.example", "ann@bank.example"},
		"nothing said":      {object{"email_verified": nil}, "ann@bank.example", "ann@bank.example"},
		"said in text":      {object{"email_verified": "true"}, "ann@bank.example", "ann@bank.example"},
		"in capitals":       {object{"email": "Ann@Bank.Example"}, "ann@bank.example", "ann@bank.example"},
		"not verified":      {object{"email_verified": false}, "", "u-1"},
		"not, in text":      {object{"email_verified": "false"}, "", "u-1"},
		"not, by a number":  {object{"email_verified": 1}, "", "u-1"},
		"none":              {object{"email": nil}, "", "u-1"},
		"list":              {object{"email": []string{"ann@bank.example"}}, "", "u-1"},
		"no address":        {object{"email": "ann"}, "", "u-1"},
		"two addresses":     {object{"email": "ann@bank.example,bob@bank.example"}, "", "u-1"},
		"line break":        {object{"email": "ann@bank.example\r\nx-bulkhead-user: bob"}, "", "u-1"},
		"space":             {object{"email": "ann @bank.example"}, "", "u-1"},
		"looks alike":       {object{"email": "аnn@bank.example"}, "", "u-1"}, // Cyrillic
		"strange subject":   {object{"email": nil, "sub": "u\r\n1"}, "", "person_"},
		"subject for a log": {object{"email": nil, "sub": "ünser"}, "", "person_"},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := people.Identify(t.Context(), p.Token("cli", row.claims))
			if err != nil || who.Email != row.want {
				t.Errorf("e-mail %q, %v", who.Email, err)
			}
			row.claims["groups"] = []string{"acme-dev"}
			m, err := people.Person(t.Context(), p.Token("api", row.claims))
			if err != nil || !strings.HasPrefix(m.Owner, row.owner) || row.owner == "person_" && m.Owner != string(m.ID) {
				t.Errorf("owner %q, %v", m.Owner, err)
			}
		})
	}
}

// FuzzToken: nothing that is not signed gets in, and nothing stops the node.
func FuzzToken(f *testing.F) {
	p := ssotest.New(f, issuerURL)
	people := newPeople(f, p)
	good := p.Token("cli", object{"groups": []string{"admins"}, "exp": 99999999999})
	f.Add(good)
	f.Add(unsigned(f, "none", p.Claims("cli", nil)))
	f.Add(hs256(f, "x", []byte("k"), p.Claims("cli", nil)))
	f.Add("..")
	f.Add(`{"payload":"e30","signatures":[]}`)
	f.Fuzz(func(t *testing.T, token string) {
		who, err := people.Identify(t.Context(), token)
		if (err == nil) != (token == good) || who.Known() != (err == nil) {
			t.Fatalf("%q: %+v %v", token, who, err)
		}
		if err != nil && code(err) != bad && code(err) != down {
			t.Fatal(err)
		}
	})
}
