package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// Snapshots are backups of the replicated state. A node that is alone has them
// too.
type Snapshots interface {
	// SaveSnapshot writes one file that holds everything but the cluster key and the
	// tenants' key shares.
	SaveSnapshot(ctx context.Context, w io.Writer) error
	// RestoreSnapshot puts all members back to what the file holds, after it has
	// verified the whole file. Epochs, and what fences an old worker, never go
	// back.
	RestoreSnapshot(ctx context.Context, r io.Reader) error
}

// maxSnapshot bounds an upload in bytes.
const maxSnapshot = 8 << 30

type restoreOutput struct{ Body restored }

type restored struct {
	Index uint64 `json:"index" doc:"last applied command"`
}

func (a *API) snapshotRoutes() {
	save := operation("save-snapshot", http.MethodGet, "/cluster/snapshot", "Download a snapshot of the replicated state: a complete backup but for the cluster key and the tenants' key shares")
	save.Responses = map[string]*huma.Response{"200": {
		Description: "the snapshot",
		Content:     map[string]*huma.MediaType{"application/octet-stream": {}},
	}}
	guarded(a, save, ofPlatform[struct{}]("the replicated state"), a.saveSnapshot)
	restore := operation("restore-snapshot", http.MethodPut, "/cluster/snapshot", "Put every member back to a snapshot")
	restore.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	guarded(a, restore, ofPlatform[restoreInput]("the replicated state"), a.restoreSnapshot)
}

// saveSnapshot breaks the connection when it fails midway: a cut file must not
// look like a whole one.
func (a *API) saveSnapshot(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	if a.cfg.Snapshots == nil {
		return nil, errNoSnapshots()
	}
	return &huma.StreamResponse{Body: func(out huma.Context) {
		out.SetHeader("Content-Type", "application/octet-stream")
		if err := a.cfg.Snapshots.SaveSnapshot(ctx, out.BodyWriter()); err != nil {
			a.cfg.Log.Error("save snapshot", zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

func errNoSnapshots() error { return huma.Error501NotImplemented("this node makes no snapshots") }

// restoreInput takes the body as a stream.
type restoreInput struct {
	Writing
	body io.Reader
}

// Resolve implements huma.Resolver.
func (in *restoreInput) Resolve(ctx huma.Context) []error {
	if err := ctx.SetReadDeadline(time.Now().Add(30 * time.Minute)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return []error{err}
	}
	in.body = http.MaxBytesReader(nil, io.NopCloser(ctx.BodyReader()), maxSnapshot)
	return in.Writing.Resolve(ctx)
}

// restoreSnapshot outlives its client once the file is here: half of the members
// restored is no state to leave behind.
func (a *API) restoreSnapshot(ctx context.Context, in *restoreInput) (*restoreOutput, error) {
	if a.cfg.Snapshots == nil {
		return nil, errNoSnapshots()
	}
	if err := a.cfg.Snapshots.RestoreSnapshot(context.WithoutCancel(ctx), in.body); err != nil {
		return nil, a.fail("restore snapshot", err)
	}
	a.cfg.Log.Warn("a snapshot was restored", zap.Uint64("index", a.cfg.Cluster.State().Index()))
	if err := a.await(ctx, "restore snapshot", a.cfg.Cluster.State().Tenants()); err != nil {
		return nil, err
	}
	noteAfter(ctx, restored{Index: a.cfg.Cluster.State().Index()})
	return &restoreOutput{restored{Index: a.cfg.Cluster.State().Index()}}, nil
}
