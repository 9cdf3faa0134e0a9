package trail

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// AnchorsConfig is what Anchors works with.
type AnchorsConfig struct {
	Cluster  string      // its name, part of what is signed
	Signer   note.Signer // required
	Proposer Proposer
	View     func() View
	Leading  func() bool // only the leader signs; nil = this node is alone
	Log      *zap.Logger // nil = none
}

const (
	anchorTick    = time.Second
	anchorAge     = time.Minute // oldest record without a checkpoint
	anchorRecords = 256         // most records without one, give or take a tick
)

// Anchors has the logs signed: every log that grew gets a checkpoint each minute,
// or after 256 records. Anything that is signed is committed, so two leaders
// cannot sign what contradicts.
type Anchors struct {
	cfg   AnchorsConfig
	since map[string]time.Time // when a log was first seen with records that no checkpoint covers
}

// NewAnchors allocates; Run works.
func NewAnchors(cfg AnchorsConfig) (*Anchors, error) {
	if cfg.Signer == nil || cfg.Proposer == nil || cfg.View == nil || cfg.Cluster == "" {
		return nil, errors.New("anchor audit logs: cluster, signer, proposer and state are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Anchors{cfg: cfg, since: map[string]time.Time{}}, nil
}

// Run signs until ctx ends. It may be called once.
func (a *Anchors) Run(ctx context.Context) {
	tick := time.NewTicker(anchorTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if a.cfg.Leading != nil && !a.cfg.Leading() {
			clear(a.since)
			continue
		}
		if err := a.anchor(ctx, a.due(time.Now())); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("anchor audit logs", zap.Error(err))
		}
	}
}

// due lists the logs whose time has come.
func (a *Anchors) due(now time.Time) []audit.Log {
	view := a.cfg.View()
	var out []audit.Log
	for _, l := range view.AuditLogs() {
		kept, _ := view.Anchor(l.Name)
		if l.Size <= kept.Size {
			delete(a.since, l.Name)
			continue
		}
		since, known := a.since[l.Name]
		if !known {
			a.since[l.Name], since = now, now
		}
		if l.Size-kept.Size >= anchorRecords || now.Sub(since) >= anchorAge {
			out = append(out, l)
		}
	}
	return out
}

// anchor signs the logs, and has the checkpoints kept by the state.
func (a *Anchors) anchor(ctx context.Context, logs []audit.Log) error {
	for len(logs) > 0 {
		n := min(len(logs), command.MaxAuditEntries)
		cmd := &command.AnchorAudit{}
		for _, l := range logs[:n] {
			signed, err := sign(a.cfg.Cluster, a.cfg.Signer, l)
			if err != nil {
				return err
			}
			cmd.Anchors = append(cmd.Anchors, command.Anchor{Log: l.Name, Size: l.Size, Note: signed})
		}
		if _, err := a.cfg.Proposer.ProposeID(ctx, "anchor-"+strings.ToLower(rand.Text()), cmd); err != nil {
			return fmt.Errorf("keep checkpoints: %w", err)
		}
		for _, l := range logs[:n] {
			delete(a.since, l.Name)
		}
		logs = logs[n:]
	}
	return nil
}

// sign makes the checkpoint of a log as the state has it.
func sign(cluster string, signer note.Signer, l audit.Log) ([]byte, error) {
	root, err := l.Root()
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return audit.SignCheckpoint(signer, audit.Origin(cluster, l.Name), l.Size, root)
}
