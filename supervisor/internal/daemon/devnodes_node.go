package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// devNode is one node of a cluster on loopback.
type devNode struct {
	id, dir                string
	listen, admin, cluster string // host:port
	running                bool   // keepRunning was started
}

// logName is where a node's log goes, in its directory.
const logName = "supervisor.log"

// stopPatience bounds a node's drain when everything ends.
const stopPatience = 45 * time.Second

func (n *devNode) config() string { return filepath.Join(n.dir, "server.yaml") }
func (n *devNode) marker() string { return filepath.Join(n.dir, "dev-member") }
func (n *devNode) pid() string    { return filepath.Join(n.dir, "supervisor.pid") }

// member reports whether the node has begun or joined the cluster.
func (n *devNode) member() bool {
	_, err := os.Stat(n.marker())
	return err == nil
}

func (n *devNode) setMember() error {
	if err := os.WriteFile(n.marker(), nil, 0o600); err != nil {
		return fmt.Errorf("note that %s is a member: %w", n.id, err)
	}
	return nil
}

// place chooses addresses: those that were asked for, those of the last start,
// those beside the first node's, or any that are free, in this order.
func (n *devNode) place(o DevNodesOptions, i int, taken map[string]bool) error {
	var old configs.Server
	if cfg, err := configs.Load(n.config()); err == nil {
		old = cfg
	}
	var err error
	pick := func(to *string, wanted ...string) {
		if err == nil {
			*to, err = freeAddr(taken, wanted...)
		}
	}
	if i == 0 {
		pick(&n.listen, o.Listen)
		pick(&n.admin, o.AdminListen)
	} else {
		pick(&n.listen, old.Listen, beside(o.Listen, 10*i))
		pick(&n.admin, old.Admin.Listen, beside(o.AdminListen, 10*i))
	}
	pick(&n.cluster, old.Cluster.Listen, beside(o.AdminListen, 10*i+1))
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", n.id, err)
	}
	return nil
}

// beside is an address with a port further up, "" when there is none.
func beside(addr string, up int) string {
	host, port, err := net.SplitHostPort(addr)
	p, bad := strconv.Atoi(port)
	if err != nil || bad != nil || p == 0 || p+up > 65535 {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(p+up))
}

// freeAddr answers the first wanted address that can be listened on, or any.
func freeAddr(taken map[string]bool, wanted ...string) (string, error) {
	var failure error
	for _, addr := range append(wanted, "127.0.0.1:0") {
		if addr == "" || taken[addr] {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			failure = err
			if len(wanted) == 1 {
				return "", err // it was asked for
			}
			continue
		}
		got := l.Addr().String()
		l.Close()
		if taken[got] {
			continue
		}
		taken[got] = true
		return got, nil
	}
	return "", failure
}

// keepRunning runs the node's process, and again after a rest when it ends, until
// ctx is done; then it waits until the process has ended.
func (d *devNodes) keepRunning(ctx context.Context, n *devNode) error {
	for {
		err := d.runNode(ctx, n)
		if ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(d.out, "bulkhead dev: %s ended (%v), starts again in %s\n", n.id, err, d.rest)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.rest):
		}
	}
}

// runNode runs one process: it dies with this one, whatever ends it.
func (d *devNodes) runNode(ctx context.Context, n *devNode) error {
	log, err := os.OpenFile(filepath.Join(n.dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, d.program, "server", "--config", n.config())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience
	// An interrupt of the terminal reaches this process alone, which stops the others in turn.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.id, err)
	}
	if err := durable.Replace(n.pid(), []byte(strconv.Itoa(cmd.Process.Pid)+"\n")); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("write pid of %s: %w", n.id, err)
	}
	err = cmd.Wait()
	os.Remove(n.pid())
	return err
}
