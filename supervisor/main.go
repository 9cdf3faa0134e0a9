// Command bulkhead is the supervisor daemon of a node and the operator's
// command line; see package supervisor/internal/cli for its verbs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/daemon"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/spawn"

	"golang.org/x/term"
)

// version is set by the build (-X main.version=...).
var version string

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) > 1 && os.Args[1] == spawn.Verb {
		return spawn.Main() // before anything grows the heap: it is the process that clones
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if version == "" {
		version = daemon.Version()
	}
	return cli.Main(ctx, os.Args[1:], cli.Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Progress: term.IsTerminal(int(os.Stderr.Fd())),
	}, cli.Programs{
		Version: version,
		Server: func(ctx context.Context, cfg configs.Server) error {
			return daemon.Serve(ctx, cfg, version)
		},
		Dev: func(ctx context.Context, o cli.DevOptions) error {
			if o.Nodes > 1 {
				return daemon.DevNodes(ctx, daemon.DevNodesOptions{Data: o.Data, Listen: o.Listen, AdminListen: o.AdminListen, Nodes: o.Nodes, Out: o.Out})
			}
			return daemon.Dev(ctx, daemon.DevOptions{Data: o.Data, Listen: o.Listen, AdminListen: o.AdminListen, Version: version, Out: o.Out})
		},
		Doctor: func(_ context.Context, o cli.DoctorOptions) error {
			return daemon.Doctor(o.Config, o.Output == "json", o.Out)
		},
		Cluster: daemon.Ops{Version: version},
		Spawner: spawn.Main,
	})
}
