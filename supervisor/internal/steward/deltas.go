package steward

import (
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

const (
	readEvery  = 2 * time.Second // how often the node's reports are gathered
	maxReports = 500             // of one renewal: it must stay quick
)

// deltas sends a leader only what it does not know yet.
type deltas struct {
	read func() []TenantReport

	mu         sync.Mutex
	at         time.Time
	current    map[bulkhead.TenantID]TenantReport
	leadership string
	known      map[bulkhead.TenantID]TenantReport // to that leadership
}

// next answers what is to be reported now, and to which leadership it adds.
func (d *deltas) next() (leadership string, changed []TenantReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.current == nil || now.Sub(d.at) >= readEvery {
		d.at, d.current = now, map[bulkhead.TenantID]TenantReport{}
		for _, r := range d.read() {
			d.current[r.Tenant] = r
		}
	}
	for id, r := range d.current {
		if old, ok := d.known[id]; (!ok || !old.equal(r)) && len(changed) < maxReports {
			changed = append(changed, r)
		}
	}
	for id := range d.known {
		if _, ok := d.current[id]; !ok && len(changed) < maxReports {
			changed = append(changed, TenantReport{Tenant: id})
		}
	}
	return d.leadership, changed
}

// took notes that a leadership has what was sent. Another one than it was sent to
// knows nothing: it gets everything next time.
func (d *deltas) took(leadership string, sent renewal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leadership != leadership || d.known == nil {
		d.leadership, d.known = leadership, map[bulkhead.TenantID]TenantReport{}
		return
	}
	for _, r := range sent.Reports {
		if _, ok := d.current[r.Tenant]; ok {
			d.known[r.Tenant] = r
		} else {
			delete(d.known, r.Tenant)
		}
	}
}
