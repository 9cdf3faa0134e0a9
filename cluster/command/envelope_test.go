package command

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

var at = time.UnixMilli(1_700_000_000_123).UTC()

func commands() []Command {
	return []Command{
		&Apply{
			Upsert: []manifest.Object{{
				Ref:        manifest.Ref{Kind: manifest.KindTenant, Name: "acme"},
				TenantSpec: &manifest.Tenant{Owner: "o@acme.example", CostCenter: "CC-1"},
			}},
			Delete: []manifest.Ref{{Kind: manifest.KindRoute, Name: "fast"}},
		},
		&CreateKey{Key{ID: "k1", Hash: bytes.Repeat([]byte{7}, 32), Tenant: "acme", Models: []string{"fast"}, Sources: []string{"192.0.2.0/24"},
			Personal: true, Service: "chat", Label: "mine", CreatedBy: "dev@acme.example", Successor: "k3", Previous: "k0"}},
		&RevokeKey{ID: "k1"},
		&SetSuspended{Tenant: "acme", Suspended: true},
		&SetDataKey{Tenant: "acme", Wrapped: []byte{1, 2, 3}, ShareID: []byte{4}},
		&BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: bytes.Repeat([]byte{9}, 32)},
		&BookReceipts{Tenant: "acme", Batch: []byte{0, 1, 2, 0xff}},
		&InitCluster{ID: "c1", CACert: []byte("cert"), CAKey: []byte{1}, Node: Node{
			ID: "n1", Addr: "n1.example:8082", Version: "v1", Level: 2, Receiver: "r1", Boot: "b1", Starts: 3, RaftIndex: 4,
			Capacity: Capacity{MemoryBytes: 5, CPUMilli: 6}, Labels: map[string]string{"zone": "a"}, Draining: true, JoinedAt: 7, Incarnation: 8,
		}},
		&CreateJoinToken{ID: "t1", Key: bytes.Repeat([]byte{3}, 32), ExpiresAt: 9},
		&JoinNode{Token: "t1", Node: Node{ID: "n2", Addr: "n2.example:8082", Receiver: "r2"}},
		&StartNode{ID: "n2", Addr: "n2.example:8082", Version: "v1", Level: 1, Receiver: "r2", Boot: "b2", RaftIndex: 10,
			Capacity: Capacity{MemoryBytes: 1}, Labels: map[string]string{"zone": "b"}},
		&MarkNodes{RaftIndex: map[string]uint64{"n1": 11, "n2": 12}},
		&SetDraining{ID: "n1", Draining: true},
		&RemoveNode{ID: "n1"},
		&Assign{Moves: []Move{{Tenant: "acme", From: "n1", To: "n2", Voters: []Replica{{Node: "n2", Receiver: "r2"}}}}},
		&SetReplicas{Tenant: "acme", Epoch: 3, Was: []Replica{{Node: "n1", Receiver: "r1"}}, Voters: []Replica{{Node: "n2", Receiver: "r2"}},
			Learners: []Replica{{Node: "n3", Receiver: "r3"}}, AcceptLoss: true},
		&SetLevel{Level: 2},
		&AppendAudit{Entries: []AuditEntry{{Log: audit.Platform, Event: audit.Event{
			Op: "op1", Phase: audit.Outcome, Action: "create-key", Tenant: "acme", Object: "Key k1", Before: json.RawMessage(`{"a":1}`),
			After: json.RawMessage(`{"a":2}`), Reason: "why", Result: audit.Failed, Status: 409, Code: "key_exists", Request: "req_1", Node: "n1", Count: 2,
			Actor: audit.Actor{Subject: "s", Name: "dev@acme.example", Method: "oidc", Issuer: "https://idp.example", Role: "auditor", Address: "192.0.2.1"},
		}}}},
		&AnchorAudit{Anchors: []Anchor{{Log: audit.TenantLog("acme"), Size: 7, Note: []byte("note")}}},
		&RotateKey{Old: "k1", Key: Key{ID: "k2", Hash: bytes.Repeat([]byte{8}, 32), Tenant: "acme"}, OldExpiresAt: 9},
		&CreateWrap{ID: "w1", Hash: bytes.Repeat([]byte{5}, 32), Sealed: []byte("sealed"), Tenant: "acme", Key: "k2", ExpiresAt: 10},
		&OpenWrap{ID: "w1", Hash: bytes.Repeat([]byte{5}, 32)},
		&GrantAccess{AccessGrant{ID: "g1", Tenant: "acme", Grantee: "a@bank.example", Scope: "logs", Envs: []string{"test"}, Reason: "why",
			By: "o@acme.example", CreatedAt: 1, ExpiresAt: 2}},
		&EndAccess{ID: "g1", Tenant: "acme"},
		&BeginErasure{ID: "e1", Tenant: "acme", Reason: "left", By: "admin", Recipient: "age1x", NotBefore: 3},
		&AdvanceErasure{Tenant: "acme", ID: "e1", Step: StepExport, Next: StepShred, Node: "n1", ExportSHA256: []byte{1}, Certificate: []byte("note"), Waiting: "n2"},
		&CancelErasure{Tenant: "acme", ID: "e1"},
		&SetHold{Tenant: "acme", Hold: true, Reason: "case 7", By: "admin"},
	}
}

func encode(t testing.TB, cmd Command, id string) []byte {
	t.Helper()
	raw, err := Encode(cmd, id, at)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestEveryCommandRoundTrips(t *testing.T) {
	seen := map[Type]bool{}
	for _, cmd := range commands() {
		env, err := Decode(encode(t, cmd, "id-1"))
		if err != nil {
			t.Errorf("%T: %v", cmd, err)
			continue
		}
		if env.ID != "id-1" || !env.At.Equal(at) || !reflect.DeepEqual(env.Command, cmd) {
			t.Errorf("%T: got %+v", cmd, env)
		}
		seen[cmd.Type()] = true
	}
	for n := range 0x80 {
		if known := newCommand(Type(n)) != nil; known != seen[Type(n)] {
			t.Errorf("type %d: known %v, tested %v", n, known, seen[Type(n)])
		}
	}
}

// The numbers are on disks: a change of one is a change of every log.
func TestTypesOnDisk(t *testing.T) {
	for i, cmd := range commands() {
		if raw := encode(t, cmd, "x"); raw[0] != byte(i+1) || raw[1] != 1 {
			t.Errorf("%T is type %d, version %d on disk, want %d, 1", cmd, raw[0], raw[1], i+1)
		}
	}
	const golden = "\x03\x01\x00\x1b" + `{"id":"x","at_ms":86400000}` + `{"id":"k1"}`
	env, err := Decode([]byte(golden))
	if err != nil || !reflect.DeepEqual(env.Command, &RevokeKey{ID: "k1"}) {
		t.Errorf("golden command: %+v, %v", env, err)
	}
}

func TestSumTellsCommandsApart(t *testing.T) {
	sum := func(cmd Command, id string, when time.Time) [32]byte {
		raw, err := Encode(cmd, id, when)
		if err != nil {
			t.Fatal(err)
		}
		env, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		return env.Sum
	}
	a := sum(&RevokeKey{ID: "k1"}, "one", at)
	if b := sum(&RevokeKey{ID: "k1"}, "two", at.Add(time.Hour)); a != b {
		t.Error("the sum depends on id or time: a repeated command would look like another")
	}
	if b := sum(&RevokeKey{ID: "k2"}, "one", at); a == b {
		t.Error("two commands, one sum")
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := encode(t, &RevokeKey{ID: "k1"}, "id")
	edit := func(fn func(b []byte) []byte) []byte { return fn(bytes.Clone(good)) }
	with := func(header, body string) []byte {
		b := binary.BigEndian.AppendUint16([]byte{byte(TypeRevokeKey), 1}, uint16(len(header)))
		return append(append(b, header...), body...)
	}
	const head = `{"id":"x","at_ms":1}`
	tests := []struct {
		name string
		raw  []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"zeros", make([]byte, 100), ErrMalformed},
		{"only the ignorable bit", edit(func(b []byte) []byte { b[0] = byte(Ignorable); return b }), ErrMalformed},
		{"unknown type", edit(func(b []byte) []byte { b[0] = 99; return b }), ErrUnknown},
		{"newer version", edit(func(b []byte) []byte { b[1] = 2; return b }), ErrUnknown},
		{"torn header", good[:10], ErrMalformed},
		{"torn body", good[:len(good)-1], ErrMalformed},
		{"trailing data", append(bytes.Clone(good), '{'), ErrMalformed},
		{"too large", make([]byte, MaxSize+1), ErrTooLarge},
		{"no id", with(`{"id":"","at_ms":1}`, `{"id":"k"}`), ErrMalformed},
		{"space in the id", with(`{"id":"a b","at_ms":1}`, `{"id":"k"}`), ErrMalformed},
		{"time before 1970", with(`{"id":"x","at_ms":-1}`, `{"id":"k"}`), ErrMalformed},
		{"time out of range", with(`{"id":"x","at_ms":9007199254740992}`, `{"id":"k"}`), ErrMalformed},
		{"unknown header field", with(`{"id":"x","at_ms":1,"if":2}`, `{"id":"k"}`), ErrMalformed},
		{"unknown body field", with(head, `{"id":"k","also":1}`), ErrMalformed},
		{"wrong body type", with(head, `[1]`), ErrMalformed},
		{"no body", with(head, ``), ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if env, err := Decode(tt.raw); !errors.Is(err, tt.want) {
				t.Errorf("Decode = %+v, %v; want %v", env, err, tt.want)
			}
		})
	}
	if _, err := Decode(with(head, `{"id":"k"}`)); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func TestIgnorableCommandsAreSkipped(t *testing.T) {
	for _, raw := range [][]byte{
		append([]byte{byte(Ignorable | 99), 7, 0, 20}, `{"id":"x","at_ms":1}whatever it is`...),
		append([]byte{byte(Ignorable | 3), 1, 0, 20}, `{"id":"x","at_ms":1}`...),
	} {
		env, err := Decode(raw)
		if err != nil || env.Command != nil || env.ID != "x" {
			t.Errorf("%q: %+v, %v", raw, env, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	revoke := &RevokeKey{ID: "k1"}
	for name, err := range map[string]error{
		"no id":       second(Encode(revoke, "", at)),
		"long id":     second(Encode(revoke, strings.Repeat("i", MaxIDLen+1), at)),
		"newline":     second(Encode(revoke, "a\nb", at)),
		"no time":     second(Encode(revoke, "x", time.Time{})),
		"long tenant": second(Encode(&BookReceipts{Tenant: bulkhead.TenantID(strings.Repeat("t", 2000))}, "x", at)),
	} {
		if err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	if _, err := Encode(&BookReceipts{Batch: make([]byte, MaxSize)}, "x", at); !errors.Is(err, ErrTooLarge) {
		t.Errorf("above the bound: %v", err)
	}
}

func second(_ []byte, err error) error { return err }

func FuzzDecode(f *testing.F) {
	for _, cmd := range commands() {
		f.Add(encode(f, cmd, "id"))
	}
	f.Add([]byte{byte(Ignorable | 99), 7, 0, 20})
	f.Fuzz(func(t *testing.T, raw []byte) {
		env, err := Decode(raw)
		if err != nil {
			if env != (Envelope{}) {
				t.Errorf("a command beside %v", err)
			}
			return
		}
		if env.Command == nil {
			return
		}
		again, err := Encode(env.Command, env.ID, env.At)
		if errors.Is(err, ErrTooLarge) {
			return // escapes can make a command longer than it came
		}
		if err != nil {
			t.Fatalf("decoded %+v does not encode: %v", env, err)
		}
		back, err := Decode(again)
		if err != nil || back.ID != env.ID || !back.At.Equal(env.At) || back.Command.Type() != env.Command.Type() {
			t.Fatalf("%+v became %+v, %v", env, back, err)
		}
	})
}
