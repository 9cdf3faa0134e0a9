package state

import (
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// State is the state machine. Apply and Restore are called by one goroutine;
// everything else may be called at any time from anywhere. The read methods
// each look at the newest View; take a View to read several things that belong
// together.
type State struct {
	view atomic.Pointer[View]
}

// View is the state at one index, immutable.
type View struct {
	index       uint64 // of the last applied command
	clock       int64  // Unix milliseconds, the highest stamp so far
	platformRev uint64 // index of the last change of an object that belongs to no tenant
	slots       uint32 // slots handed out

	objects  tree[*object]        // by refKey
	retired  tree[uint64]         // last generation of deleted price books, by refKey: bills name them for ever
	tenants  tree[*tenant]        // by tenant; deleted ones stay as tombstones
	keys     tree[*command.Key]   // by key id
	hashes   tree[bulkhead.KeyID] // by hash: no two keys share one
	byTenant tree[*command.Key]   // by tenant NUL key id
	usage    tree[*UsageRow]      // by UsageRow.key
	done     window               // answers of the last commands

	cluster  *Cluster            // nil: a node that stands alone
	nodesRev uint64              // index of the last change of the cluster or its nodes, marks excepted
	nodes    tree[*command.Node] // members, by id
	removed  tree[*removedNode]  // former members, by id
	tokens   tree[*joinToken]    // by id
	byNode   tree[bool]          // by node NUL tenant: who is assigned where

	trail    trail                      // last lines of the audit trail
	logs     tree[*audit.Log]           // how far its logs go, by name
	anchors  tree[*command.Anchor]      // newest checkpoints, by log
	uses     tree[*keyUse]              // by key id
	wraps    tree[*command.CreateWrap]  // by id
	grants   tree[*command.AccessGrant] // by tenant NUL id
	erasures tree[*erasure]             // by erasureKey
	holds    tree[*hold]                // by tenant

	changes feed   // what the last commands touched; not part of the replicated state
	rewound uint64 // restores of an older state; not part of it either
}

// object is a stored object of desired state.
type object struct {
	Object manifest.Object `json:"object"`
	Meta   Meta            `json:"meta"`
}

// Meta is what the state knows about an object besides its spec.
type Meta struct {
	Generation uint64 `json:"generation"` // 1, 2, ...: grows with every change of the spec
	CreatedAt  int64  `json:"created_at"` // Unix milliseconds
	UpdatedAt  int64  `json:"updated_at"` // Unix milliseconds
}

// Tenant is a tenant as the supervisor needs it.
type Tenant struct {
	ID         bulkhead.TenantID
	Spec       manifest.Tenant
	Suspended  bool
	Erasing    bool           // an erasure goes on: no request is served, and from its step shred on no worker runs
	CreatedAt  int64          // Unix milliseconds
	Rev        uint64         // index of the last command that changed anything the tenant's policy depends on
	Epoch      bulkhead.Epoch // 0: no worker was ever started
	Node       string         // where the epoch runs
	Assigned   string         // the node that may begin an epoch; "" = none, and always so without a cluster
	PublicKey  []byte         // Ed25519 key of the epoch
	DataKey    []byte         // wrapped by the cluster key and the key share; nil: not made yet
	ShareID    []byte         // SHA-256 of the key share without which DataKey does not open
	Slot       uint32         // small, unique, never used again: the worker's uid is base + slot
	AppliedSeq uint64         // journal records up to here are booked
	TreeSize   uint64         // receipts booked
	TreeRoot   []byte         // RFC 6962 root of those receipts; nil while there are none
	Frontier   []byte         // receipt.Frontier of those receipts, encoded; never empty

	Voters   []command.Replica // whose copies of the journal count, sorted
	Learners []command.Replica // who receives copies without counting, sorted
}

// New returns the empty state before the first command.
func New() *State {
	s := new(State)
	s.view.Store(new(View))
	return s
}

// View returns the newest View.
func (s *State) View() *View { return s.view.Load() }

// Index is the index of the last applied command.
func (s *State) Index() uint64 { return s.View().Index() }

// Objects lists the objects of a kind, sorted by tenant, project and name.
func (s *State) Objects(kind manifest.Kind) []manifest.Object { return s.View().Objects(kind) }

// Object answers one object.
func (s *State) Object(ref manifest.Ref) (manifest.Object, Meta, bool) { return s.View().Object(ref) }

// Tenant answers one tenant; deleted tenants are not found.
func (s *State) Tenant(id bulkhead.TenantID) (Tenant, bool) { return s.View().Tenant(id) }

// Tenants lists the tenants, sorted.
func (s *State) Tenants() []bulkhead.TenantID { return s.View().Tenants() }

// Keys lists the keys of a tenant, revoked ones too, sorted by id.
func (s *State) Keys(tenant bulkhead.TenantID) []command.Key { return s.View().Keys(tenant) }

// Key answers one key.
func (s *State) Key(id bulkhead.KeyID) (command.Key, bool) { return s.View().Key(id) }

// RangeKeys calls fn for every key, sorted by id, until fn answers false. fn
// must not modify or keep what k points to beyond reading it.
func (s *State) RangeKeys(fn func(k *command.Key) bool) { s.View().RangeKeys(fn) }

// Usage calls fn for every usage row, sorted, until fn answers false.
func (s *State) Usage(fn func(row UsageRow) bool) { s.View().Usage(fn) }

// Cluster answers what the members have in common; false: there is no cluster.
func (s *State) Cluster() (Cluster, bool) { return s.View().Cluster() }

// Nodes lists the members, sorted by id.
func (s *State) Nodes() []command.Node { return s.View().Nodes() }

// Node answers one member.
func (s *State) Node(id string) (command.Node, bool) { return s.View().Node(id) }

// JoinToken answers a join token that is not forgotten yet.
func (s *State) JoinToken(id string) (command.CreateJoinToken, bool) { return s.View().JoinToken(id) }

// AuditLog answers how far a log of the audit trail goes.
func (s *State) AuditLog(name string) (audit.Log, bool) { return s.View().AuditLog(name) }

// AuditLogs lists the logs that are not empty, sorted by name.
func (s *State) AuditLogs() []audit.Log { return s.View().AuditLogs() }

// Anchor answers the newest signed checkpoint of a log.
func (s *State) Anchor(log string) (command.Anchor, bool) { return s.View().Anchor(log) }

// AuditCount is the N of the last line of the audit trail; 0: there is none.
func (s *State) AuditCount() uint64 { return s.View().AuditCount() }

// AuditSince calls fn for the lines after the n-th that are kept, see
// View.AuditSince.
func (s *State) AuditSince(n uint64, fn func(AuditLine) bool) (whole bool) {
	return s.View().AuditSince(n, fn)
}

// LastUsed answers when a key was last used, and how often.
func (s *State) LastUsed(id bulkhead.KeyID) (ms int64, requests int64) { return s.View().LastUsed(id) }

// Grants lists the grants of a tenant, sorted by id.
func (s *State) Grants(tenant bulkhead.TenantID) []command.AccessGrant {
	return s.View().Grants(tenant)
}

// GrantFor answers the grant by which a person may read a tenant's content.
func (s *State) GrantFor(tenant bulkhead.TenantID, grantee string, nowMS int64) (command.AccessGrant, bool) {
	return s.View().GrantFor(tenant, grantee, nowMS)
}

// Erasure answers the newest erasure of a tenant's name, a finished one too.
func (s *State) Erasure(tenant bulkhead.TenantID) (command.Erasure, bool) {
	return s.View().Erasure(tenant)
}

// Erasures lists all erasures, finished ones too.
func (s *State) Erasures() []command.Erasure { return s.View().Erasures() }

// Held reports whether a tenant is under legal hold, and why.
func (s *State) Held(tenant bulkhead.TenantID) (reason string, held bool) {
	return s.View().Held(tenant)
}

// Wrapped answers a wrapped secret that was not read yet.
func (s *State) Wrapped(id string) (command.CreateWrap, bool) { return s.View().Wrapped(id) }
