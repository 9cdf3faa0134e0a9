package erasure

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// fakeWorker serves n receipts, newest first, as a worker does.
type fakeWorker struct {
	n, breaksAt int // after so many lines of an answer the connection breaks; 0 = never
	foreign     bool
	queries     int
	released    int
	down        error
	url         string
}

func (w *fakeWorker) start(t testing.TB) {
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.url = s.URL
}

func (w *fakeWorker) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.queries++
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	top := w.n
	if b := q.Get("before"); b != "" {
		top, _ = strconv.Atoi(b)
		top--
	}
	given := 0
	for seq := top; seq > 0 && given < limit; seq-- {
		if given++; w.breaksAt > 0 && given > w.breaksAt {
			panic(http.ErrAbortHandler)
		}
		r := receipt.Receipt{Tenant: tenantName, Seq: uint64(seq), Epoch: 1, Request: bulkhead.RequestID(fmt.Sprintf("req_%032x", seq)), Salt: strings.Repeat("ab", 16)}
		if w.foreign && given == 3 {
			r.Tenant = "globex"
		}
		out.Write(append(r.AppendJSON(nil), '\n'))
	}
}

// Query implements Workers.
func (w *fakeWorker) Query(context.Context, bulkhead.TenantID) (*http.Client, func(), error) {
	if w.down != nil {
		return nil, nil, w.down
	}
	to, err := url.Parse(w.url)
	if err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(to), DisableKeepAlives: true}}, func() { w.released++ }, nil
}

type fakeAudit struct{}

func (fakeAudit) Export(_ context.Context, log string, w io.Writer) error {
	_, err := fmt.Fprintf(w, "{\"log\":%q,\"seq\":1}\n", log)
	return err
}

// unpack decrypts an archive to its end.
func unpack(t *testing.T, raw []byte, id age.Identity) (map[string]string, error) {
	t.Helper()
	plain, err := age.Decrypt(bytes.NewReader(raw), id)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, plain)
			return files, err
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(in)
		if err != nil {
			return nil, err
		}
		files[h.Name] = string(body)
	}
}

func exportFixture(t *testing.T, w *fakeWorker) (*Exporter, *age.X25519Identity) {
	t.Helper()
	w.start(t)
	s := newSim(t, 1)
	s.must(&command.Apply{Upsert: []manifest.Object{{
		Ref: manifest.Ref{Kind: manifest.KindProvider, Tenant: tenantName, Name: "main"},
		ProviderSpec: &manifest.Provider{
			Adapter: "openai", BaseURL: "https://up.example/v1", Credential: &manifest.Credential{Sealed: []byte("canary-credential")},
		},
	}}})
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return NewExporter(ExporterConfig{Cluster: s.nodes[0], Workers: w, Audit: fakeAudit{}, VerifierKey: s.vkey}), id
}

func TestExportHoldsEverythingButSecrets(t *testing.T) {
	w := &fakeWorker{n: 25_000}
	e, id := exportFixture(t, w)
	e.page = 10_000
	var raw bytes.Buffer
	if err := e.Export(t.Context(), &raw, tenantName, id.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	files, err := unpack(t, raw.Bytes(), id)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var log strings.Builder
	for _, name := range names {
		if strings.HasPrefix(name, "requests-") {
			if len(files[name]) > partSize || !strings.HasSuffix(files[name], "\n") {
				t.Errorf("%s: %d bytes, cut within a line: %v", name, len(files[name]), !strings.HasSuffix(files[name], "\n"))
			}
			log.WriteString(files[name])
		}
	}
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	if len(lines) != w.n || w.queries != 3 || w.released != 1 {
		t.Fatalf("%d of %d receipts in %d queries, %d releases", len(lines), w.n, w.queries, w.released)
	}
	for i, line := range lines {
		if !strings.Contains(line, fmt.Sprintf(`"seq":%d,`, w.n-i)) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	all := files["objects-000001.yaml"] + files["keys-000001.csv"] + files["README.txt"]
	for _, want := range []string{"kind: Tenant", "kind: Provider", "key_1,bh_...abcd,chat,prod,bot", "tenant acme"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in:\n%s", want, all)
		}
	}
	if !strings.Contains(files["audit-000001.ndjson"], `"log":"tenant/acme"`) {
		t.Errorf("audit: %q", files["audit-000001.ndjson"])
	}
	for name, text := range files {
		if strings.Contains(text, "canary") || strings.Contains(text, "Y2FuYXJ5") || strings.Contains(text, "hash") && name != "README.txt" {
			t.Errorf("%s holds a secret or a hash", name)
		}
	}
	if bytes.Contains(raw.Bytes(), []byte("acme")) {
		t.Error("the archive is readable without the key")
	}
}

func TestBrokenExportIsNone(t *testing.T) {
	for name, w := range map[string]*fakeWorker{
		"connection breaks": {n: 1000, breaksAt: 700}, "another tenant's receipt": {n: 1000, foreign: true},
	} {
		e, id := exportFixture(t, w)
		var raw bytes.Buffer
		if err := e.Export(t.Context(), &raw, tenantName, id.Recipient().String()); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := unpack(t, raw.Bytes(), id); err == nil {
			t.Errorf("%s: what was written decrypts to an end", name)
		}
	}
}

func TestExportRefusesBeforeItWrites(t *testing.T) {
	w := &fakeWorker{n: 1, down: bulkhead.E(bulkhead.Unavailable, "worker_unavailable", "no")}
	e, id := exportFixture(t, w)
	for name, run := range map[string]func(io.Writer) error{
		"worker down":  func(to io.Writer) error { return e.Export(t.Context(), to, tenantName, id.Recipient().String()) },
		"no such key":  func(to io.Writer) error { return e.Export(t.Context(), to, tenantName, "age1nonsense") },
		"no tenant":    func(to io.Writer) error { return e.Export(t.Context(), to, "nobody", id.Recipient().String()) },
		"a secret key": func(to io.Writer) error { return e.Export(t.Context(), to, tenantName, id.String()) },
	} {
		var out bytes.Buffer
		err := run(&out)
		if err == nil || out.Len() > 0 {
			t.Errorf("%s: %v after %d bytes", name, err, out.Len())
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET-KEY") {
			t.Errorf("%s: the error repeats a secret key: %v", name, err)
		}
	}
}

// TestExportMemoryIsBounded measures while the archive is written.
func TestExportMemoryIsBounded(t *testing.T) {
	w := &fakeWorker{n: 80_000}
	e, id := exportFixture(t, w)
	var peak, base runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	written := 0
	to := writerFunc(func(p []byte) (int, error) {
		if written += len(p); written%(4<<20) < len(p) {
			var now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&now)
			if now.HeapInuse > peak.HeapInuse {
				peak = now
			}
		}
		return len(p), nil
	})
	if err := e.Export(t.Context(), to, tenantName, id.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak.HeapInuse) - int64(base.HeapInuse); grown > 16<<20 || written < 30<<20 {
		t.Errorf("%d MiB written with %d MiB of heap", written>>20, grown>>20)
	} else {
		t.Logf("%d MiB written with %d MiB of heap", written>>20, grown>>20)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestPartsCutAtLines(t *testing.T) {
	var raw bytes.Buffer
	a := &archive{tar: tar.NewWriter(&raw)}
	if err := a.parts("x", ".txt", func(w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("y"), partSize))
		return err
	}); err == nil {
		t.Error("a line longer than a file was accepted")
	}
	if err := a.parts("none", ".txt", func(io.Writer) error { return nil }); err != nil {
		t.Error(err)
	}
}
