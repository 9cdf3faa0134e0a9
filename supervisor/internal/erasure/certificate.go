package erasure

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"golang.org/x/mod/sumdb/note"
)

// Certificate says what was destroyed, by whom, when, and what was not. Times
// are those of the cluster's state, in milliseconds; hashes are hex of SHA-256.
type Certificate struct {
	Cluster     string            `json:"cluster"`
	Tenant      bulkhead.TenantID `json:"tenant"`
	Plan        string            `json:"plan"`
	Reason      string            `json:"reason"`
	By          string            `json:"by"`
	Started     time.Time         `json:"started"`
	Certified   time.Time         `json:"certified"`
	Steps       []StepEnd         `json:"steps"`
	Nodes       []NodeWord        `json:"nodes"`
	Share       string            `json:"share,omitempty"`    // the destroyed key share; empty: the tenant never had one, nothing was encrypted
	DataKey     string            `json:"data_key,omitempty"` // the wrapped data key that was forgotten
	KeysRevoked int               `json:"keys_revoked"`
	Export      string            `json:"export,omitempty"` // the archive that the owner took before
	Usage       []Total           `json:"usage"`            // what stays on the bill
	AuditLog    AuditHead         `json:"audit_log"`
	Method      []string          `json:"method"`
	NotCovered  []string          `json:"not_covered"`
}

// StepEnd is when a step of the plan was left.
type StepEnd struct {
	Step string    `json:"step"`
	At   time.Time `json:"at"`
}

// NodeWord is a node's confirmation of its part of a step.
type NodeWord struct {
	Node string    `json:"node"`
	Step string    `json:"step"`
	At   time.Time `json:"at"`
}

// Total is the tenant's usage in one currency ("" where nothing was priced).
type Total struct {
	Currency     string `json:"currency,omitempty"`
	Requests     int64  `json:"requests"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
	Cost         string `json:"cost"` // decimal
}

// AuditHead is the tenant's audit log as it was when the certificate was made.
type AuditHead struct {
	Name string `json:"name"`
	Size uint64 `json:"size"`
	Root string `json:"root"` // of its RFC 6962 tree, base64
}

// method and notCovered are worded for people who will hold the platform to it.
func method() []string {
	return []string{
		"Cryptographic erase in the sense of NIST SP 800-88r2: the tenant's log was encrypted from its first byte by AES-256-GCM with a data key of its own.",
		"The data key was wrapped by the cluster key together with a key share kept outside the replicated state. Every node named above overwrote and deleted its copy of the share, deleted the tenant's files, and confirmed it.",
		"The wrapped data key, the tenant's objects and its keys' hashes were then deleted from the replicated state, and every node rewrote its log and snapshots.",
		"Overwriting is done through the file system; on media that remap blocks the erasure rests on the two deletions together, not on the overwriting.",
	}
}

func notCovered() []string {
	return []string{
		"Copies of key shares that were escrowed outside the nodes.",
		"Exports of the tenant's data that were handed out.",
		"Images of whole disks or machines of nodes, and disks of nodes that were removed before they confirmed.",
		"What providers, clients and other systems outside the platform keep.",
		"Usage totals and the audit log: they stay, as above.",
	}
}

// certificateOf says what the state knows of a plan.
func certificateOf(view *state.View, p *command.Erasure, cluster string) (*Certificate, error) {
	c := &Certificate{
		Cluster: cluster, Tenant: p.Tenant, Plan: p.ID, Reason: p.Reason, By: p.By,
		Started: instant(p.StartedAt), Certified: view.Time(),
		Share: hex.EncodeToString(p.ShareID), DataKey: hex.EncodeToString(p.DataKeySHA), KeysRevoked: p.KeysRevoked,
		Export: hex.EncodeToString(p.ExportSHA256), Usage: totals(view, p.Tenant), Method: method(), NotCovered: notCovered(),
	}
	for _, s := range p.Passed {
		c.Steps = append(c.Steps, StepEnd{s.Step, instant(s.At)})
	}
	for _, n := range p.Confirmed {
		c.Nodes = append(c.Nodes, NodeWord{n.Node, n.Step, instant(n.At)})
	}
	name := audit.TenantLog(p.Tenant)
	c.AuditLog.Name = name
	log, ok := view.AuditLog(name)
	if !ok {
		log = audit.Log{Name: name}
	}
	root, err := log.Root()
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", p.Tenant, err)
	}
	c.AuditLog.Size, c.AuditLog.Root = log.Size, base64.StdEncoding.EncodeToString(root[:])
	return c, nil
}

func instant(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// totals sums the ledger's rows of a tenant by currency.
func totals(view *state.View, id bulkhead.TenantID) []Total {
	sums := map[string]*Total{}
	costs := map[string]bulkhead.Total{}
	view.UsageOf(id, func(r state.UsageRow) bool {
		t := sums[r.Currency]
		if t == nil {
			t = &Total{Currency: r.Currency}
			sums[r.Currency] = t
		}
		t.Requests += r.Requests
		t.InputTokens += r.InputTokens
		t.OutputTokens += r.OutputTokens
		costs[r.Currency] = costs[r.Currency].Plus(r.Cost)
		return true
	})
	out := make([]Total, 0, len(sums))
	for currency, t := range sums {
		t.Cost = costs[currency].String()
		out = append(out, *t)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Currency < out[j].Currency })
	return out
}

// VerifyCertificate reads a certificate and checks its signature with nothing
// but the verifier key (the form that `bulkhead tenant certificate` shows: name,
// hash and key, joined by plus signs). It does no I/O.
//
// It answers what the signer said; whoever holds the cluster key can sign what
// it likes.
func VerifyCertificate(raw []byte, vkey string) (Certificate, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return Certificate{}, fmt.Errorf("read verifier key: %w", err)
	}
	n, err := note.Open(raw, note.VerifierList(verifier))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return Certificate{}, errors.New("verify certificate: it is not signed by this key")
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("verify certificate: %w", err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	return *c, nil
}
