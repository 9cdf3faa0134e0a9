package tenants

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

// launchEnv is what a start needs of the node. It is the same for all tenants.
type launchEnv struct {
	cfg     *Config
	cluster Cluster
	keys    KeyRing
	spawner Spawner
	books   Bookkeeper
	dirs    *directories
	sockets *socketNames
	page    *os.File // the lease page, read only
}

// rev is the revision of a tenant's policy in the present state.
func (e *launchEnv) rev(id bulkhead.TenantID) (uint64, bool) {
	t, ok := e.cluster.State().Tenant(id)
	return t.Rev, ok
}

// launch starts a process and leads it through the handshake. On an error
// nothing of it is left.
//
//	Start -> Hello -> (Raft: BeginEpoch) -> (copies: TakeOver) -> Serve -> Ready
//
// begun is called with the epoch before anything is done under it.
func (e *launchEnv) launch(ctx context.Context, id bulkhead.TenantID, out *egress.Tenant, begun func(bulkhead.Epoch)) (*worker, error) {
	t, ok := e.cluster.State().Tenant(id)
	if !ok {
		return nil, fmt.Errorf("start worker of %s: %w", id, ErrNoTenant)
	}
	key, err := e.dataKey(ctx, t)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	dir, err := e.dirs.prepare(id, t.Slot)
	if err != nil {
		return nil, err
	}
	w, err := e.spawn(ctx, t, dir, out)
	if err != nil {
		return nil, err
	}
	w.begun = begun
	if err := w.handshake(ctx, key); err != nil {
		w.finish(err)
		return nil, err
	}
	go func() { w.finish(w.loop()) }() // whoever got w waits for done
	return w, nil
}

// dataKey opens the tenant's data key, or makes the first one. Two nodes may
// try at once; the state keeps one, and both use that. One that is not known to
// have lost keeps its share: without it the winner's data would be unreadable.
func (e *launchEnv) dataKey(ctx context.Context, t state.Tenant) ([]byte, error) {
	if len(t.DataKey) > 0 {
		return e.keys.UnwrapDataKey(ctx, t.ID, t.DataKey, t.ShareID)
	}
	key, wrapped, shareID, err := e.keys.NewDataKey(ctx, t.ID)
	if err != nil {
		return nil, fmt.Errorf("make data key of %s: %w", t.ID, err)
	}
	result, err := e.cluster.Propose(ctx, &command.SetDataKey{Tenant: t.ID, Wrapped: wrapped, ShareID: shareID})
	if err != nil {
		clear(key)
		return nil, fmt.Errorf("store data key of %s: %w", t.ID, err)
	}
	inForce, ok := result.(command.DataKey)
	if !ok {
		clear(key)
		return nil, fmt.Errorf("store data key of %s: internal error: result %T", t.ID, result)
	}
	if bytes.Equal(inForce.Wrapped, wrapped) {
		return key, nil
	}
	clear(key)
	if !bytes.Equal(inForce.ShareID, shareID) {
		if err := e.keys.ForgetShare(t.ID, shareID); err != nil {
			e.cfg.Log.Warn("a key share that opens nothing is left", zap.String("tenant", string(t.ID)), zap.Error(err))
		}
	}
	return e.keys.UnwrapDataKey(ctx, t.ID, inForce.Wrapped, inForce.ShareID)
}

// spawn starts the process and the goroutines around it.
func (e *launchEnv) spawn(ctx context.Context, t state.Tenant, dir string, out *egress.Tenant) (*worker, error) {
	ch, err := openChannels(e.sockets, e.cfg.SendTimeout)
	if err != nil {
		return nil, err
	}
	process, err := e.spawner.Worker(ctx, WorkerSpec{
		Tenant: t.ID, Slot: t.Slot, Dir: dir,
		Log: ch.child[0], Control: ch.child[1], Requests: ch.child[2], Queries: ch.child[3], Broker: ch.child[4],
		Replica: ch.child[5], Lease: e.page,
	})
	ch.closeChild()
	if err != nil {
		ch.close()
		return nil, fmt.Errorf("spawn worker of %s: %w", t.ID, err)
	}
	log := e.cfg.Log.With(zap.String("tenant", string(t.ID)), zap.Int("pid", process.PID()))
	lifetime, cancel := context.WithCancel(context.Background())
	w := &worker{
		id: t.ID, env: e, log: log, process: process, ch: ch, lifetime: lifetime, cancel: cancel,
		plugins: newPluginHost(e.spawner, process, out.Target),
		frames:  make(chan frame), batches: make(chan []byte, 4), failed: make(chan error, 1),
		stop: make(chan struct{}), ended: make(chan struct{}), kick: make(chan struct{}, 1),
		changed: make(chan struct{}), booked: true,
		facts: processInfo{pid: process.PID(), requests: ch.requests, queries: ch.queries},
	}
	w.policy = func() (control.Policy, error) { return e.policy(t.ID, out, log) }
	w.helpers.Go(w.read)
	w.helpers.Go(w.book)
	w.helpers.Go(func() { relayLog(ch.logs, log) })
	w.helpers.Go(func() { w.serveEgress(lifetime, out) })
	return w, nil
}

// policy derives the present policy and puts its allow-list in force.
func (e *launchEnv) policy(id bulkhead.TenantID, out *egress.Tenant, log *zap.Logger) (control.Policy, error) {
	p, targets, problems, err := Policy(e.cluster.State().View(), id, e.openCredential)
	if err != nil {
		return p, err
	}
	if problems != nil {
		log.Warn("policy is incomplete", zap.Error(problems), zap.Uint64("rev", p.Rev))
	}
	out.SetTargets(targets)
	return p, nil
}

func (e *launchEnv) openCredential(tenant bulkhead.TenantID, provider string, sealed []byte) ([]byte, error) {
	return e.keys.OpenCredential(tenant, provider, sealed)
}

// handshake brings a spawned process to serving.
func (w *worker) handshake(ctx context.Context, key []byte) error {
	p, err := w.policy()
	if err != nil {
		return err
	}
	w.sentRev = p.Rev
	if err := w.ch.control.Send(control.TypeStart, w.env.startMessage(w.id, key, p)); err != nil {
		return w.because(err)
	}
	if err := w.env.dirs.markUnbooked(w.id); err != nil {
		return err
	}
	hello, err := expect[control.Hello](ctx, w, control.TypeHello)
	if err != nil {
		return err
	}
	if len(hello.PublicKey) != ed25519.PublicKeySize {
		return &protocolError{fmt.Sprintf("public key of %d bytes", len(hello.PublicKey))}
	}
	serve, err := w.begin(ctx, hello.PublicKey)
	if err != nil {
		return err
	}
	if err := w.ch.control.Send(control.TypeServe, serve); err != nil {
		return w.because(err)
	}
	ready, err := expect[control.Ready](ctx, w, control.TypeReady)
	if err != nil {
		return err
	}
	if ready.Epoch != serve.Epoch {
		return &protocolError{fmt.Sprintf("ready for epoch %d, not %d", ready.Epoch, serve.Epoch)}
	}
	w.mu.Lock()
	w.facts.epoch, w.facts.layers, w.facts.rev = serve.Epoch, boundLayers(hello.Layers), p.Rev
	w.mu.Unlock()
	w.process.Ready()
	w.sync() // the policy may have changed since
	return nil
}

func (e *launchEnv) startMessage(id bulkhead.TenantID, key []byte, p control.Policy) control.Start {
	return control.Start{
		Tenant: id, Node: e.cfg.Node, DataKey: key, RootDir: rootName, Sandbox: e.cfg.Sandbox,
		Policy: p, CABundle: e.cfg.CABundle, Tuning: e.cfg.Tuning,
	}
}

// maxEpochs bounds the epochs of one start. Each that a copy refuses tells of a
// newer promise, and there are no more copies than that.
const maxEpochs = 8

// begin begins an epoch and takes the journal over under it. Where copies know a
// newer one, because an older snapshot of the state was restored, the next is
// begun above that. Each of them is still this node's to begin, or the state
// refuses it.
func (w *worker) begin(ctx context.Context, publicKey []byte) (control.Serve, error) {
	after := w.env.dirs.lastEpoch(w.id) // where no copies tell: a node that stands alone
	for tries := 1; ; tries++ {
		serve, err := w.beginEpoch(ctx, publicKey, after)
		if err != nil {
			return control.Serve{}, err
		}
		serve.Replicated, err = w.takeOver(ctx, serve.Epoch)
		var overtaken *Overtaken
		if !errors.As(err, &overtaken) || overtaken.Promised < serve.Epoch || tries == maxEpochs {
			return serve, err
		}
		after = overtaken.Promised
		w.log.Warn("copies of the journal know a newer epoch than the state: beginning one above it",
			zap.Uint64("epoch", uint64(serve.Epoch)), zap.Uint64("promised", uint64(after)))
	}
}

// beginEpoch fences every earlier process of the tenant. When the outcome is
// not known the start fails: the next one has a new key, and so cannot be taken
// for this one.
func (w *worker) beginEpoch(ctx context.Context, publicKey []byte, after bulkhead.Epoch) (control.Serve, error) {
	result, err := w.env.cluster.Propose(ctx, &command.BeginEpoch{Tenant: w.id, Node: w.env.cfg.Node, PublicKey: publicKey, After: after})
	if err != nil {
		return control.Serve{}, fmt.Errorf("begin epoch: %w", err)
	}
	epoch, ok := result.(bulkhead.Epoch)
	if !ok {
		return control.Serve{}, fmt.Errorf("begin epoch: internal error: result %T", result)
	}
	w.begun(epoch)
	if err := w.env.dirs.noteEpoch(w.id, epoch); err != nil {
		return control.Serve{}, err
	}
	t, ok := w.env.cluster.State().Tenant(w.id)
	if !ok || t.Epoch != epoch {
		return control.Serve{}, errors.New("begin epoch: another process of the tenant has begun a newer one")
	}
	return control.Serve{Epoch: epoch, AppliedSeq: t.AppliedSeq, Frontier: t.Frontier}, nil
}

// expect waits for the one message that is due. Receipts of an earlier epoch may
// come before Ready, since the journal is read before that.
func expect[T any](ctx context.Context, w *worker, want control.Type) (T, error) {
	var zero T
	for {
		select {
		case f, ok := <-w.frames:
			switch {
			case !ok:
				return zero, fmt.Errorf("before it was ready: %w", w.lastWords())
			case f.kind == control.TypeFatal:
				return zero, fatal(f.payload)
			case f.kind == control.TypeReceipts && want == control.TypeReady:
				if err := w.queueBatch(ctx, f.payload); err != nil {
					return zero, err
				}
				continue
			case f.kind != want:
				return zero, &protocolError{fmt.Sprintf("message type %d instead of %d", f.kind, want)}
			}
			m, err := control.Decode[T](f.payload)
			if err != nil {
				return zero, &protocolError{err.Error()}
			}
			return m, nil
		case err := <-w.failed:
			return zero, err
		case <-ctx.Done():
			return zero, startEnded(ctx)
		}
	}
}

func (w *worker) queueBatch(ctx context.Context, raw []byte) error {
	select {
	case w.batches <- raw:
		return nil
	case err := <-w.failed:
		return err
	case <-ctx.Done():
		return startEnded(ctx)
	}
}

func startEnded(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("worker was not ready in time")
	}
	return fmt.Errorf("start was called off: %w", ctx.Err())
}

// because prefers what the process has to say over the broken socket that it
// left.
func (w *worker) because(sendErr error) error {
	select {
	case <-w.process.Done():
		return fmt.Errorf("worker ended: %s", w.process.Exit())
	case <-time.After(exitSlack):
		return sendErr
	}
}

// boundLayers keeps a worker's own report small.
func boundLayers(layers []control.Layer) []control.Layer {
	const most, longest = 32, 200
	layers = layers[:min(len(layers), most)]
	for i := range layers {
		l := &layers[i]
		l.Name, l.Detail = l.Name[:min(len(l.Name), longest)], l.Detail[:min(len(l.Detail), longest)]
	}
	return layers
}
