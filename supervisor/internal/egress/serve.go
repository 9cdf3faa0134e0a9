package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// reapInterval is how often ended connections are forgotten while a worker
// runs. It decides only how long a closed descriptor stays, not when the
// provider sees the end.
const reapInterval = 5 * time.Second

// The bounds of a plugin request.
const (
	maxEnv        = 16
	maxEnvBytes   = 32 << 10
	maxSocketName = 64
)

// Plugins starts and reaches the plugin processes of one worker. An error of
// type *control.BrokerError reaches the worker with its code, any other as
// CodeFailed. Its methods may be called concurrently.
type Plugins interface {
	// StartPlugin starts the adapter of a provider of the policy.
	StartPlugin(ctx context.Context, provider string, env []string) (id uint64, stdout, stderr *os.File, err error)
	// ConnectPlugin connects to a socket by its name in the plugin's directory.
	ConnectPlugin(ctx context.Context, id uint64, name string) (*os.File, error)
	// KillPlugin ends a plugin; one that has ended is no error.
	KillPlugin(id uint64) error
}

// Serve answers the broker requests of one worker until its socket ends, ctx
// ends, or it breaks the protocol, which is the only case with an error. At the
// end no connection of the worker is left, and none of Serve's goroutines.
// plugins may be nil. At most one Serve of a Tenant runs at a time.
func (t *Tenant) Serve(ctx context.Context, conn *control.BrokerConn, plugins Plugins) error {
	ctx, cancel := context.WithCancel(ctx)
	defer t.revokeAll()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()

	s := &session{tenant: t, conn: conn, plugins: plugins, slots: make(chan struct{}, maxRunning)}
	running.Go(func() { t.reapUntil(ctx) })
	for {
		q, err := conn.ReadRequest()
		if err != nil {
			return readError(err)
		}
		t.requests.Add(1)
		select {
		case s.slots <- struct{}{}:
		default:
			s.refuse(q.ID, control.CodeBusy, errors.New("too many requests at once"))
			continue
		}
		running.Go(func() {
			defer func() { <-s.slots }()
			s.answer(ctx, q)
		})
	}
}

func (t *Tenant) reapUntil(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.reap()
		}
	}
}

func readError(err error) error {
	if errors.Is(err, control.ErrFrame) {
		return fmt.Errorf("broker socket: %w", err)
	}
	return nil // the worker is gone, or was told to go
}

// session is one Serve.
type session struct {
	tenant  *Tenant
	conn    *control.BrokerConn
	plugins Plugins
	slots   chan struct{}
}

func (s *session) answer(ctx context.Context, q control.BrokerRequest) {
	var err error
	switch q.Op {
	case control.OpDial:
		err = s.dial(ctx, q)
	case control.OpPluginStart:
		err = s.startPlugin(ctx, q)
	case control.OpPluginConnect:
		err = s.connectPlugin(ctx, q)
	case control.OpPluginKill:
		err = s.killPlugin(q)
	default:
		err = &control.BrokerError{Op: "request", Code: control.CodeNotFound, Detail: "no such operation"}
	}
	if err != nil {
		s.refuse(q.ID, code(err), err)
	}
}

// refuse counts and answers. A reply that cannot be sent means that the worker
// is gone, which the reader sees as well.
func (s *session) refuse(id uint64, code string, err error) {
	switch code {
	case control.CodeDenied, control.CodeNotFound:
		s.tenant.denied.Add(1)
	case control.CodeBusy:
		s.tenant.busy.Add(1)
	default:
		s.tenant.failed.Add(1)
	}
	_ = s.conn.SendReply(control.BrokerReply{ID: id, Code: code, Detail: detail(err)})
}

// detail is the operator's part of a refusal. Resolver and dial errors name
// addresses of the inside, so only our own words pass.
func detail(err error) string {
	var denied *DeniedError
	var broker *control.BrokerError
	switch {
	case errors.As(err, &denied):
		return denied.Why
	case errors.As(err, &broker):
		return broker.Detail
	}
	return ""
}

func (s *session) dial(ctx context.Context, q control.BrokerRequest) error {
	target, ok := s.tenant.Target(q.Provider)
	if !ok || target.Host == "" {
		return &control.BrokerError{Op: q.Op, Code: control.CodeNotFound, Detail: "no such provider in the policy"}
	}
	if !s.tenant.begin() {
		return &control.BrokerError{Op: q.Op, Code: control.CodeBusy, Detail: "dial rate or open connections"}
	}
	conn, err := s.tenant.cfg.dial(ctx, target)
	if err != nil {
		s.tenant.giveUp()
		return err
	}
	defer conn.Close()
	return s.hand(q, conn, target)
}

// hand passes the descriptor. The duplicate is registered first: from the
// moment that the worker has the connection it can be revoked.
func (s *session) hand(q control.BrokerRequest, conn *net.TCPConn, target Target) error {
	h, err := hold(conn, q.Provider, target)
	if err != nil {
		s.tenant.giveUp()
		return err
	}
	if !s.tenant.admit(h) {
		s.tenant.giveUp()
		h.revoke()
		return &control.BrokerError{Op: q.Op, Code: control.CodeNotFound, Detail: "the policy changed"}
	}
	file, err := conn.File()
	if err != nil {
		return fmt.Errorf("duplicate connection: %w", err)
	}
	defer file.Close()
	s.tenant.handed.Add(1)
	_ = s.conn.SendReply(control.BrokerReply{ID: q.ID}, file) // fails only when the worker is gone
	return nil
}

func (s *session) startPlugin(ctx context.Context, q control.BrokerRequest) error {
	target, ok := s.tenant.Target(q.Provider)
	if !ok || !target.Plugin || s.plugins == nil {
		return &control.BrokerError{Op: q.Op, Code: control.CodeNotFound, Detail: "no plugin for this provider"}
	}
	if err := checkEnv(q.Env); err != nil {
		return &control.BrokerError{Op: q.Op, Code: control.CodeDenied, Detail: err.Error()}
	}
	id, stdout, stderr, err := s.plugins.StartPlugin(ctx, q.Provider, q.Env)
	if err != nil {
		return err
	}
	defer closeAll(stdout, stderr)
	if err := s.conn.SendReply(control.BrokerReply{ID: q.ID, Plugin: id}, stdout, stderr); err != nil {
		_ = s.plugins.KillPlugin(id) // nobody knows of it
	}
	return nil
}

func (s *session) connectPlugin(ctx context.Context, q control.BrokerRequest) error {
	if s.plugins == nil {
		return &control.BrokerError{Op: q.Op, Code: control.CodeNotFound, Detail: "no such plugin"}
	}
	if !validSocketName(q.Path) {
		return &control.BrokerError{Op: q.Op, Code: control.CodeDenied, Detail: "not a socket name"}
	}
	file, err := s.plugins.ConnectPlugin(ctx, q.Plugin, q.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	_ = s.conn.SendReply(control.BrokerReply{ID: q.ID}, file)
	return nil
}

func (s *session) killPlugin(q control.BrokerRequest) error {
	if s.plugins == nil {
		return &control.BrokerError{Op: q.Op, Code: control.CodeNotFound, Detail: "no such plugin"}
	}
	if err := s.plugins.KillPlugin(q.Plugin); err != nil {
		return err
	}
	_ = s.conn.SendReply(control.BrokerReply{ID: q.ID})
	return nil
}

// checkEnv admits go-plugin's handshake and nothing that a dynamic linker or
// the Go runtime listens to.
func checkEnv(env []string) error {
	size := 0
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || strings.ContainsRune(value, 0) {
			return errors.New("malformed environment")
		}
		if strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "GO") {
			return fmt.Errorf("environment variable %s", name)
		}
		size += len(kv)
	}
	if len(env) > maxEnv || size > maxEnvBytes {
		return errors.New("environment too large")
	}
	return nil
}

func validSocketName(s string) bool {
	return s != "" && len(s) <= maxSocketName && s[0] != '.' && !strings.ContainsAny(s, "/\x00")
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
