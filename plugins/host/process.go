package host

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// process is one life of the plugin. Its owner is the goroutine that start
// leaves behind, which ends with the process.
type process struct {
	rpc    wire.AdapterClient
	runner *launchRunner
	once   sync.Once
	over   chan struct{} // closed by retire
}

// retire ends the process, without waiting; calls in flight fail.
func (p *process) retire() {
	p.once.Do(func() { close(p.over) })
	p.runner.end()
}

// gone reports whether the process ended or is about to.
func (p *process) gone() bool {
	select {
	case <-p.over:
		return true
	case <-p.runner.exited:
		return true
	default:
		return false
	}
}

// start runs one process until it described itself. go-plugin takes its deadline
// twice, for the launch and for the handshake; the timer here holds the sum.
func (a *Adapter) start() (*process, provider.Info, error) {
	var info provider.Info
	log := newLogSink(a.cfg.Log, a.cfg.Name)
	r := newLaunchRunner(&a.cfg)
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  sdk.Handshake(),
		Plugins:          plugin.PluginSet{sdk.PluginName: &clientPlugin{}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     a.cfg.StartTimeout,
		Logger:           hclog.NewNullLogger(),
		Stderr:           log.stream("stderr"),
		SyncStdout:       log.stream("stdout"),
		SyncStderr:       log.stream("stderr"),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: a.dir},
		GRPCDialOptions:  a.dialOptions(r),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			r.env, r.dir = cmd.Env, dir
			return r, nil
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.StartTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, r.end)
	rpc, err := dispense(client)
	if err == nil {
		info, err = describe(ctx, rpc)
	}
	stop()
	if err != nil {
		r.end()
		client.Kill()
		return nil, info, err
	}
	p := &process{rpc: rpc, runner: r, over: make(chan struct{})}
	a.wg.Go(func() { a.own(p, client, log) })
	return p, info, nil
}

// own waits for the end of a process and cleans up after it.
func (a *Adapter) own(p *process, client *plugin.Client, log *logSink) {
	select {
	case <-p.over:
	case <-p.runner.exited:
		a.cfg.Log.Warn("plugin ended", zap.String("plugin", a.cfg.Name), zap.String("process", p.runner.ID()))
	}
	p.retire()
	client.Kill() // the process is dead already: this closes connections and pipes and waits for their readers
	log.close()
}

func (a *Adapter) dialOptions(r *launchRunner) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return a.cfg.Connect(ctx, r.socket())
		}),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(sdk.MaxMessage), grpc.MaxCallSendMsgSize(sdk.MaxMessage)),
	}
}

func dispense(client *plugin.Client) (wire.AdapterClient, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, fmt.Errorf("start plugin: %w", err)
	}
	v, err := protocol.Dispense(sdk.PluginName)
	if err != nil {
		return nil, fmt.Errorf("connect to plugin: %w", err)
	}
	return v.(wire.AdapterClient), nil
}

func describe(ctx context.Context, rpc wire.AdapterClient) (provider.Info, error) {
	reply, err := rpc.Describe(ctx, &wire.DescribeRequest{}, grpc.WaitForReady(false))
	if err != nil {
		return provider.Info{}, fmt.Errorf("describe plugin: %w", err)
	}
	info := reply.Provider()
	if err := checkInfo(&info); err != nil {
		return provider.Info{}, fmt.Errorf("describe plugin: %w", err)
	}
	return info, nil
}

// clientPlugin makes go-plugin dispense the protocol's client.
type clientPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (*clientPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return fmt.Errorf("the host serves no adapter")
}

func (*clientPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return wire.NewAdapterClient(c), nil
}

// watch retires a process that does not finish a call in time: it hangs, and the
// calls to come would too. The caller stops the timer.
func (a *Adapter) watch(p *process) *time.Timer {
	return time.AfterFunc(a.cfg.CallTimeout, func() {
		a.cfg.Log.Warn("plugin hangs", zap.String("plugin", a.cfg.Name), zap.String("process", p.runner.ID()))
		p.retire()
	})
}
