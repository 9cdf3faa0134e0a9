package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

const simNodes = 3

// errLoss: what was promised is broken.
var errLoss = errors.New("promise broken")

func lossf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errLoss, fmt.Sprintf(format, args...))
}

// mutant is a way in which a node of the simulator is broken.
type mutant string

const (
	sound           mutant = ""
	unbroken        mutant = "none" // sound, and run as the mutants are
	forgetsPromise  mutant = "no fencing promise"
	acksByOne       mutant = "acknowledged by one"
	skipsSync       mutant = "skipped fsync"
	takesLongest    mutant = "longest copy"
	ignoresIdentity mutant = "ignored replica identity"
)

// sim is one run: three nodes with the real keepers and owners on disks and a
// network of its own, a replicated state that is only a few variables, and
// workers that write numbers. Everything is chosen by a seed.
type sim struct {
	rng     *rand.Rand
	mutant  mutant
	net     *simNet
	nodes   [simNodes]*simNode
	size    int64 // of segments
	flips   bool  // this run damages one disk instead of replacing some
	flipped bool

	mu       sync.Mutex // of the replicated state and the events
	epoch    bulkhead.Epoch
	set      Replicas
	unsure   bool // Promote loses its answer
	events   []taken
	ending   bool
	workers  []*simWorker
	acked    map[uint64]record // by number
	ackedMax uint64
	logs     []taken
	id       uint64
	trace    func(string, ...any)

	records, takeovers, faults int
}

// taken is the outcome of a take-over.
type taken struct {
	node    *simNode
	boot    int
	epoch   bulkhead.Epoch
	set     Replicas
	pos     Position
	records map[uint64]record
	base    Point
	err     error
}

type simNode struct {
	s      *sim
	index  int
	id     string
	disk   *memDisk
	view   *memView
	k      *Keeper
	ctx    context.Context // of the process
	cancel context.CancelFunc
	up     bool
	boot   int
	taking int
	tasks  sync.WaitGroup
	worker *simWorker
}

func newSim(seed uint64, m mutant, trace func(string, ...any)) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), mutant: m, acked: map[uint64]record{}, trace: trace}
	s.net = &simNet{s: s}
	s.size = []int64{4 << 10, 8 << 10, 64 << 10}[s.rng.IntN(3)]
	s.flips = m == sound && s.rng.IntN(3) == 0
	for i := range s.nodes {
		s.nodes[i] = &simNode{s: s, index: i, id: fmt.Sprintf("n%d", i), disk: newMemDisk()}
		s.nodes[i].disk.noSync = m == skipsSync
		s.nodes[i].start()
		s.set.Voters = append(s.set.Voters, s.nodes[i].replica())
	}
	return s
}

// zapTrace is what the keeper logs, for a run that is looked at.
func (n *simNode) zapTrace() *zap.Logger {
	if *simSeed == 0 {
		return nil
	}
	return zap.NewExample(zap.Fields(zap.String("on", n.id)))
}

func (n *simNode) replica() command.Replica {
	return command.Replica{Node: n.id, Receiver: n.k.Receiver()}
}

func (n *simNode) start() {
	n.view = n.disk.view()
	k, err := OpenKeeper(KeeperConfig{Node: n.id, MetaDir: "meta", MinFree: -1, FS: n.view, Log: n.zapTrace(),
		Dir: func(bulkhead.TenantID) string { return "journal" }, Open: n.dial, Fence: n.fence,
		Budget: Budget{Rate: -1}})
	if err != nil {
		panic(err)
	}
	if n.s.mutant == takesLongest {
		k.prefer = func(a, b Position) bool { return a.Seq > b.Seq }
	}
	n.s.net.mu.Lock()
	defer n.s.net.mu.Unlock()
	n.k, n.up = k, true
	n.boot++
	n.ctx, n.cancel = context.WithCancel(context.Background())
}

// kill ends the node's process and what it had open.
func (n *simNode) kill() {
	if !n.up {
		return
	}
	n.s.net.mu.Lock()
	n.up = false
	n.s.net.mu.Unlock()
	n.view.kill()
	n.cancel()
	if n.worker != nil {
		n.worker.kill()
	}
	n.s.net.cut(func(c *simConn) bool { return c.from == n.index || c.to == n.index })
	n.tasks.Wait()
	n.k.Close() // its disk is gone: nothing is written
}

func (n *simNode) fence(_ context.Context, _ bulkhead.TenantID, e bulkhead.Epoch) error {
	n.s.mu.Lock()
	w := n.worker
	n.s.mu.Unlock()
	if w != nil && w.epoch < e {
		w.kill()
	}
	return nil
}

// assign begins an epoch on a node.
func (s *sim) assign(n *simNode) {
	s.mu.Lock()
	s.epoch++
	t := taken{node: n, boot: n.boot, epoch: s.epoch, set: Replicas{slices.Clone(s.set.Voters), slices.Clone(s.set.Learners)}}
	s.mu.Unlock()
	n.taking++
	n.tasks.Go(func() {
		t.pos, t.err = n.k.TakeOver(n.ctx, TakeOver{Tenant: tenant, Epoch: t.epoch, Voters: t.set.Voters})
		if t.err == nil {
			if dir, err := n.view.OpenDir("journal", false); err == nil {
				t.records, t.base, _, t.err = readRecords(dir)
			} else {
				t.err = err
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, t)
	})
}

// opened checks a take-over and starts its worker.
func (s *sim) opened(t taken) error {
	t.node.taking--
	if t.err != nil || !t.node.up || t.node.boot != t.boot {
		s.trace("take-over %d on %s: %v", t.epoch, t.node.id, t.err)
		return nil
	}
	s.takeovers++
	s.trace("take-over %d on %s up to %d", t.epoch, t.node.id, t.pos.Seq)
	for seq, r := range s.acked {
		if r.epoch < t.epoch && seq > t.base.Seq && t.records[seq] != r {
			return lossf("epoch %d begins on %s without acknowledged record %d of epoch %d", t.epoch, t.node.id, seq, r.epoch)
		}
	}
	s.logs = append(s.logs, t)
	n := t.node
	dir, err := n.view.OpenDir("journal", false)
	if err != nil {
		return err
	}
	here, there := net.Pipe()
	w := &simWorker{n: n, epoch: t.epoch, sock: newPieceSocket(here), updates: make(chan Replicas, 16), mine: map[uint64]record{}}
	if w.pen, err = openPenman(dir, t.epoch, s.size, func(p control.Piece) { w.sock.queue <- p }); err != nil {
		w.sock.Close()
		if errors.Is(err, ErrBusy) {
			return nil // fenced already, the keeper has it
		}
		return fmt.Errorf("epoch %d: worker cannot open what was taken over: %w", t.epoch, err)
	}
	s.mu.Lock()
	n.worker = w
	s.workers = append(s.workers, w)
	w.updates <- s.set // it may have changed since the epoch began
	s.mu.Unlock()
	n.tasks.Go(func() {
		err := n.k.Own(n.ctx, OwnerConfig{Tenant: tenant, Epoch: t.epoch, Voters: t.set.Voters, Learners: t.set.Learners,
			Pieces: there, Promote: func(_ context.Context, _ []command.Replica, want Replicas) (Replicas, error) {
				return s.promote(t.epoch, want)
			}, Updates: w.updates})
		w.kill()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trace("owner %d on %s ended: %v", t.epoch, n.id, err)
	})
	n.tasks.Go(func() {
		for {
			seq, err := control.ReadAcked(here)
			if err != nil {
				return
			}
			w.mu.Lock()
			w.held = seq
			w.mu.Unlock()
		}
	})
	return s.write(w, 1)
}

func (s *sim) promote(epoch bulkhead.Epoch, want Replicas) (Replicas, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		return Replicas{}, errors.New("refused: not the tenant's epoch")
	}
	s.set = want
	if s.unsure {
		s.unsure = false
		return Replicas{}, errors.New("outcome unknown")
	}
	s.trace("promoted: %v", want)
	return want, nil
}

// settle lets everything run until it waits, and looks at what happened.
func (s *sim) settle() error {
	for {
		synctest.Wait()
		if err := s.check(); err != nil {
			return err
		}
		s.mu.Lock()
		events := s.events
		s.events = nil
		s.workers = slices.DeleteFunc(s.workers, func(w *simWorker) bool { return w.gone })
		s.mu.Unlock()
		if s.mutant == forgetsPromise {
			s.forget()
		}
		if len(events) == 0 {
			return nil
		}
		for _, t := range events {
			if err := s.opened(t); err != nil {
				return err
			}
		}
	}
}

// forget makes the keepers forget what they promised.
func (s *sim) forget() {
	for _, n := range s.nodes {
		if n.up && n.taking == 0 && n.k.books[tenant] != nil {
			if b := n.k.books[tenant]; b.owned == 0 {
				b.promise.epoch = 0
			}
		}
	}
}

// step does one thing.
func (s *sim) step() error {
	n := s.nodes[s.rng.IntN(simNodes)]
	switch x := s.rng.IntN(1000); {
	case x < 560:
		if lanes := s.net.ready(); len(lanes) > 0 {
			s.net.deliver(lanes[s.rng.IntN(len(lanes))])
		}
	case x < 740:
		if len(s.workers) > 0 {
			return s.write(s.workers[s.rng.IntN(len(s.workers))], 1+s.rng.IntN(3))
		}
	case x < 860:
		if len(s.workers) > 0 {
			w := s.workers[s.rng.IntN(len(s.workers))]
			w.mu.Lock()
			defer w.mu.Unlock()
			if !w.gone {
				return w.pen.sync()
			}
		}
	case x < 900:
		time.Sleep(time.Duration(s.rng.IntN(400)) * time.Millisecond)
	case x < 905:
		time.Sleep(time.Duration(s.rng.IntN(22)) * time.Second)
	case x < 925:
		if n.up {
			s.assign(n)
		}
	default:
		return s.fault(n, x)
	}
	return nil
}

func (s *sim) run(steps int) (err error) {
	defer s.end()
	s.assign(s.nodes[0])
	for range steps {
		if err := s.settle(); err != nil {
			return err
		}
		if err := s.step(); err != nil {
			return err
		}
	}
	if err := s.settle(); err != nil {
		return err
	}
	if s.mutant != sound {
		return nil
	}
	return s.finish()
}

func (s *sim) end() {
	s.net.mu.Lock()
	s.ending = true
	s.net.mu.Unlock()
	for _, n := range s.nodes {
		n.kill()
	}
	s.net.cut(func(*simConn) bool { return true })
	s.net.tasks.Wait()
}
