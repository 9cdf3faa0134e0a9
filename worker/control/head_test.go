package control

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

func person() Head {
	return Head{Request: "req_1", Key: PersonID(sha256.Sum256([]byte("iss\x00sub"))), Rev: 7, Member: &Member{
		Project: "scoring", Env: "test", Account: "people", Owner: "ann@bank.example", ExpiresAt: 1_800_000_000_000,
	}}
}

func parse(values ...string) (Head, error) { return ParseHead(http.Header{HeaderRequest: values}) }

func TestHeadRoundTrip(t *testing.T) {
	h := http.Header{}
	for _, d := range []Head{{Request: "req_1", Key: "key_1", Rev: 0}, {Request: "req_1", Key: "key_1", Rev: 1<<64 - 1}, person()} {
		d.Set(h)
		got, err := ParseHead(h)
		if err != nil || got.Request != d.Request || got.Key != d.Key || got.Rev != d.Rev || (got.Member == nil) != (d.Member == nil) {
			t.Fatalf("%q: %+v, %v", h, got, err)
		}
		if d.Member != nil && *got.Member != *d.Member {
			t.Errorf("member %+v", got.Member)
		}
	}
}

// TestHeadIsStrict: what Set does not write is no head, and a key is never taken
// for a person or the other way round.
func TestHeadIsStrict(t *testing.T) {
	good := person().Value()
	id := string(person().Key)
	b64 := base64.RawURLEncoding.EncodeToString
	edit := func(change func(*Member)) string {
		d := person()
		change(d.Member)
		return d.Value()
	}
	for name, values := range map[string][]string{
		"none":                  nil,
		"two lines":             {good, good},
		"empty":                 {""},
		"no rev":                {"req_1 key_1"},
		"no key":                {"req_1  7"},
		"rev":                   {"req_1 key_1 x"},
		"rev spelled otherwise": {"req_1 key_1 07"},
		"rev with a sign":       {"req_1 key_1 +7"},
		"more for a key":        {"req_1 key_1 7 " + strings.SplitN(good, " ", 4)[3]},
		"a space after a key":   {"req_1 key_1 7 "},
		"a person without more": {"req_1 " + id + " 7"},
		"a person's short id":   {strings.Replace(good, id, id[:len(id)-1], 1)},
		"a person's other id":   {strings.Replace(good, id, "person_0123456789abcdeF", 1)},
		"one field less":        {good[:strings.LastIndexByte(good, ' ')]},
		"one field more":        {good + " 1"},
		"padding":               {strings.Replace(good, b64([]byte("test")), "dGVzdA==", 1)},
		"trailing bits":         {strings.Replace(good, b64([]byte("test")), "dGVzdB", 1)},
		"no project":            {edit(func(m *Member) { m.Project = "" })},
		"env is no name":        {edit(func(m *Member) { m.Env = "../prod" })},
		"account is no name":    {edit(func(m *Member) { m.Account = "a b" })},
		"no owner":              {edit(func(m *Member) { m.Owner = "" })},
		"owner breaks a line":   {edit(func(m *Member) { m.Owner = "a\r\nX-Bulkhead-Request: b" })},
		"owner is no text":      {edit(func(m *Member) { m.Owner = "\xff" })},
		"long owner":            {edit(func(m *Member) { m.Owner = strings.Repeat("a", 257) })},
		"no end":                {edit(func(m *Member) { m.ExpiresAt = 0 })},
		"negative end":          {edit(func(m *Member) { m.ExpiresAt = -1 })},
		"end spelled otherwise": {strings.Replace(good, " 1800000000000", " 01800000000000", 1)},
	} {
		if d, err := parse(values...); err == nil {
			t.Errorf("%s: %q is %+v %+v", name, values, d, d.Member)
		}
	}
}

// TestHeadCannotBeInjected: whatever a person's texts hold, the value stays one
// line of the same number of fields.
func TestHeadCannotBeInjected(t *testing.T) {
	evil := "a b\r\nX-Bulkhead-User: root\r\n\r\n\x00"
	v := Head{Request: "r", Key: "k", Member: &Member{evil, evil, evil, evil, 1}}.Value()
	if strings.ContainsAny(v, "\r\n\x00") || strings.Count(v, " ") != 7 {
		t.Errorf("%q", v)
	}
}

func TestPersonIDs(t *testing.T) {
	id := PersonID([32]byte{0xab, 1})
	if id != "person_ab01000000000000" || !IsPerson(id) {
		t.Errorf("id %s", id)
	}
	for _, s := range []string{"", "person_", "person_ab0100000000000", "person_ab010000000000000", "person_AB01000000000000", "key_ab01000000000000", "person_ab0100000000000g"} {
		if IsPerson(bulkhead.KeyID(s)) {
			t.Errorf("%q is a person", s)
		}
	}
}

func TestMemberExpires(t *testing.T) {
	m := &Member{ExpiresAt: 1000}
	if m.Expired(time.UnixMilli(999)) || !m.Expired(time.UnixMilli(1000)) {
		t.Error("a token ends at another time than it says")
	}
}

// FuzzParseHead: what is accepted has one spelling, and its parts are sane.
func FuzzParseHead(f *testing.F) {
	f.Add("req_1 key_1 7")
	f.Add(person().Value())
	f.Add("req_1 person_0123456789abcdef 7 YQ YQ YQ YQ 1")
	f.Fuzz(func(t *testing.T, value string) {
		d, err := parse(value)
		if err != nil {
			return
		}
		if d.Value() != value || d.Request == "" || d.Key == "" || IsPerson(d.Key) != (d.Member != nil) {
			t.Fatalf("%q is %+v, which is %q", value, d, d.Value())
		}
		if m := d.Member; m != nil && (!bulkhead.ValidName(m.Project) || !bulkhead.ValidName(m.Env) || !bulkhead.ValidName(m.Account) ||
			m.Owner == "" || strings.ContainsAny(m.Owner, "\r\n\x00") || m.ExpiresAt <= 0) {
			t.Fatalf("%q is %+v", value, m)
		}
	})
}
