package state

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// Readers beside Apply, for the race detector; and what they see is never half
// of a command: the tenant and its project come together.
func TestReadersBesideApply(t *testing.T) {
	m := newMachine(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := m.st.View()
				read(m.st)
				if _, err := v.WriteTo(io.Discard); err != nil {
					t.Error(err)
				}
				for _, id := range v.Tenants() {
					if n := len(v.ObjectsOf("Project", id)); n != 1 {
						t.Errorf("tenant %s is seen with %d projects", id, n)
					}
				}
			}
		})
	}
	for i := range 60 {
		name := fmt.Sprintf("t%02d", i)
		m.must(team(name))
		m.must(testKey(name, name))
		w := newWorker(m, name, name)
		w.book(w.receipt())
		m.must(&command.RevokeKey{ID: w.key})
	}
	close(stop)
	readers.Wait()
}

// large is a state with n usage rows and as many keys.
func large(b *testing.B, n int) *State {
	b.Helper()
	m := newMachine(b)
	m.must(team("acme"))
	v := *m.st.View()
	for i := range n {
		k := testKey("acme", fmt.Sprintf("key-%08d", i)).Key
		v.keys = v.keys.put(string(k.ID), &k)
		v.byTenant = v.byTenant.put(tenantKeyKey(k.Tenant, k.ID), &k)
		v.hashes = v.hashes.put(string(k.Hash), k.ID)
		r := &UsageRow{Tenant: "acme", Project: "chat", Env: "prod", Account: "bot", Key: string(k.ID), Model: "tiny",
			Day: "2026-01-01", Currency: "USD", Requests: 1, Served: 1, InputTokens: 9, OutputTokens: 9}
		r.Cost = r.Cost.Add(123456789)
		v.usage = v.usage.put(r.key(), r)
	}
	m.st.view.Store(&v)
	return m.st
}

func BenchmarkLargeState(b *testing.B) {
	const n = 200_000
	st := large(b, n)
	raw := snapshotOf(b, st)
	b.Run("snapshot stall", func(b *testing.B) {
		for b.Loop() {
			if st.View() == nil {
				b.Fatal("no view")
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if _, err := st.View().WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if err := New().Restore(bytes.NewReader(raw)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("update one row", func(b *testing.B) {
		b.ReportAllocs()
		v := st.View()
		keys := make([]string, 0, n)
		v.usage.scan("", func(key string, _ *UsageRow) bool { keys = append(keys, key); return true })
		for i := 0; b.Loop(); i++ {
			v.usage.put(keys[i*7919%n], &UsageRow{})
		}
	})
}

func BenchmarkBookBatchOf64(b *testing.B) {
	_, w := ledger(b)
	for b.Loop() {
		b.StopTimer()
		rs := []receipt.Receipt{}
		for range 64 {
			rs = append(rs, w.receipt())
		}
		b.StartTimer()
		w.book(rs...)
	}
}
