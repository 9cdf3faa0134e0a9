package erasure

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// writeObjects writes the tenant and what belongs to it, as apply reads it.
func writeObjects(w io.Writer, view *state.View, id bulkhead.TenantID) error {
	var objects []manifest.Object
	if o, _, ok := view.Object(manifest.Ref{Kind: manifest.KindTenant, Name: string(id)}); ok {
		objects = append(objects, o)
	}
	for _, kind := range manifest.Kinds() {
		objects = append(objects, view.ObjectsOf(kind, id)...)
	}
	for i := range objects {
		if p := objects[i].ProviderSpec; p != nil && p.Credential != nil {
			open := *p
			open.Credential = nil // even sealed it is of no use outside
			objects[i].ProviderSpec = &open
		}
	}
	return manifest.Encode(w, objects)
}

// writeKeys writes what is known of the keys, but their hashes.
func writeKeys(w io.Writer, view *state.View, id bulkhead.TenantID) error {
	out := csv.NewWriter(w)
	out.Write([]string{
		"id", "display", "project", "env", "service_account", "owner", "service", "label", "personal", "models",
		"endpoints", "sources", "created_by", "created_at", "expires_at", "revoked_at",
	})
	for _, k := range view.Keys(id) {
		out.Write([]string{
			string(k.ID), k.Display, k.Project, k.Env, k.Account, k.Owner, k.Service, harmless(k.Label), strconv.FormatBool(k.Personal),
			strings.Join(k.Models, " "), strings.Join(k.Endpoints, " "), strings.Join(k.Sources, " "), k.CreatedBy,
			timeText(k.CreatedAt), timeText(k.ExpiresAt), timeText(k.RevokedAt),
		})
	}
	out.Flush()
	return out.Error()
}

// harmless keeps a spreadsheet from running a free text as a formula.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}

func timeText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return instant(ms).Format(time.RFC3339)
}

// usageLine is a row of the ledger.
type usageLine struct {
	Project       string         `json:"project"`
	Env           string         `json:"env"`
	Account       string         `json:"service_account"`
	Key           string         `json:"key_id"`
	Model         string         `json:"model"`
	Day           string         `json:"day"`
	Requests      int64          `json:"requests"`
	Served        int64          `json:"served"`
	Failed        int64          `json:"failed"`
	TimedOut      int64          `json:"timed_out"`
	Cancelled     int64          `json:"cancelled"`
	RefusedLimit  int64          `json:"refused_limit"`
	RefusedPolicy int64          `json:"refused_policy"`
	RefusedAuth   int64          `json:"refused_auth"`
	Tokens        bulkhead.Usage `json:"tokens"`
	Cost          bulkhead.Total `json:"cost"`
	Currency      string         `json:"currency"`
	Unpriced      int64          `json:"unpriced"`
	Unknown       int64          `json:"unknown"`
	UnknownCost   bulkhead.Total `json:"unknown_cost"`
}

func writeUsage(w io.Writer, view *state.View, id bulkhead.TenantID) (err error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	view.UsageOf(id, func(r state.UsageRow) bool {
		err = enc.Encode(usageLine{
			r.Project, r.Env, r.Account, r.Key, r.Model, r.Day,
			r.Requests, r.Served, r.Failed, r.TimedOut, r.Cancelled, r.RefusedLimit, r.RefusedPolicy, r.RefusedAuth,
			r.Usage, r.Cost, r.Currency, r.Unpriced, r.Unknown, r.UnknownCost,
		})
		return err == nil
	})
	return err
}

const (
	maxReceipt = 64 << 10 // bytes of a line: what a worker sends is not trusted
	pageLines  = 200_000  // receipts asked for at once
)

// logPages reads a tenant's log from its worker, page by page from the newest
// receipt to the oldest: nobody else can read it.
type logPages struct {
	client *http.Client
	tenant bulkhead.TenantID
	to     io.Writer
	lines  int
	before uint64 // sequence number of the last receipt; 0 = none yet
}

// write copies the whole log.
func (p *logPages) write(ctx context.Context, w io.Writer) (err error) {
	p.to = w
	for more := true; more && err == nil; {
		more, err = p.next(ctx)
	}
	return err
}

// next copies one page and reports whether there may be another.
func (p *logPages) next(ctx context.Context) (more bool, err error) {
	target := "http://worker/logs?limit=" + strconv.Itoa(p.lines)
	if p.before != 0 {
		target += "&before=" + strconv.FormatUint(p.before, 10)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return false, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return false, bulkhead.E(bulkhead.Unavailable, "worker_unavailable", "The tenant's worker does not answer.").With(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, bulkhead.E(bulkhead.Upstream, "worker_failed", "The tenant's worker refused the query.").With(errors.New(resp.Status))
	}
	n, err := p.copy(resp.Body)
	return n == p.lines && p.before > 1, err
}

func (p *logPages) copy(r io.Reader) (n int, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 4<<10), maxReceipt)
	for in.Scan() {
		var rec struct { // of receipt.Receipt
			Tenant bulkhead.TenantID `json:"tenant"`
			Seq    uint64            `json:"seq"`
		}
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil {
			return n, fmt.Errorf("read receipt: %w", err)
		}
		if rec.Tenant != p.tenant || rec.Seq == 0 || p.before != 0 && rec.Seq >= p.before {
			return n, fmt.Errorf("worker of %s answered receipt %d of %q out of order", p.tenant, rec.Seq, rec.Tenant)
		}
		p.before = rec.Seq
		if _, err := p.to.Write(in.Bytes()); err != nil {
			return n, err
		}
		if _, err := io.WriteString(p.to, "\n"); err != nil {
			return n, err
		}
		n++
	}
	if err := in.Err(); err != nil {
		return n, fmt.Errorf("read log: %w", err)
	}
	return n, nil
}
