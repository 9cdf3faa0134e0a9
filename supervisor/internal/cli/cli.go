package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	Done       = 0
	Failed     = 1
	WrongUsage = 2
)

// Programs are what the daemon provides. A function blocks until its program
// ends; its error, if any, is printed.
type Programs struct {
	Version string
	Server  func(ctx context.Context, cfg configs.Server) error
	Dev     func(ctx context.Context, opts DevOptions) error
	Doctor  func(ctx context.Context, opts DoctorOptions) error
	Cluster ClusterOps
	// Spawner is the hidden child that starts workers; it answers the exit
	// status.
	Spawner func() int
}

// DevOptions are the flags of bulkhead dev.
type DevOptions struct {
	Data        string // folder, made if need be
	Listen      string // data plane
	AdminListen string
	Nodes       int       // 1, or a cluster of 3 on loopback
	Out         io.Writer // for the curl line
}

// DoctorOptions are the flags of bulkhead doctor.
type DoctorOptions struct {
	Config configs.Server // of the node, or Defaults
	Output string         // table or json
	Out    io.Writer
}

// Streams are the process's surroundings.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Progress bool // Err is a terminal: long work may draw a progress bar
}

// Main runs one command line, without the program's name, and answers the exit
// status. It ends when ctx does.
func Main(ctx context.Context, args []string, s Streams, p Programs) int {
	a := &app{streams: s, programs: p}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return a.status
	}
	fmt.Fprintln(s.Err, "bulkhead: "+explain(err))
	var usage *usageError
	var config configs.Errors
	if errors.As(err, &usage) || errors.As(err, &config) && !errors.Is(err, errManifest) {
		return WrongUsage
	}
	var node interface{ ExitStatus() int }
	if errors.As(err, &node) {
		return node.ExitStatus()
	}
	return Failed
}

// explain is an error's text: one line, but for files, of which every wrong line
// is shown with its source.
func explain(err error) string {
	var es configs.Errors
	if errors.As(err, &es) && len(es) > 0 {
		text := strings.TrimRight(es.Explain(), "\n")
		if errors.Is(err, errManifest) {
			text += "\n" + errManifest.Error()
		}
		return text
	}
	return err.Error()
}

// usageError says that the command line itself is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// app is one run of the command line.
type app struct {
	streams  Streams
	programs Programs
	status   int // exit status of a command that ended without an error

	addr, tokenFile, caFile string
	reason                  string // why, for the audit trail
	output                  format
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "bulkhead",
		Short:             "On-prem AI gateway: one sandboxed process per tenant",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see %s --help)", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", "", "admin addresses, comma-separated, tried in turn (default $BULKHEAD_ADDR, then "+defaultAddr+")")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the admin token, mode 0600 (default: the token in $BULKHEAD_TOKEN)")
	f.StringVar(&a.caFile, "ca-file", "", "PEM certificates to trust for https addresses (default: the system's)")
	f.StringVar(&a.reason, "reason", "", "why, for the audit trail; some commands want it")
	f.VarP(&a.output, "output", "o", "table, json, yaml or csv")
	root.AddCommand(
		a.serverCommand(), a.devCommand(), a.doctorCommand(), a.versionCommand(), a.spawnerCommand(),
		a.applyCommand(), a.getCommand(), a.deleteCommand(),
		a.keyCommand(), a.tenantCommand(), a.usageCommand(), a.logsCommand(), a.pluginCommand(), a.clusterCommand(),
		a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.grantCommand(), a.auditCommand(),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var names []string
		for _, c := range commands {
			names = append(names, c.Name())
		}
		return usagef("%s: say which: %s", cmd.CommandPath(), strings.Join(names, ", "))
	}}
	c.AddCommand(commands...)
	return c
}

// noArgs words cobra's "unknown command" as wrong usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q for %q (see %s --help)", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

// exactArgs wants one argument per name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s: want %s", cmd.CommandPath(), strings.Join(names, " "))
		}
		return nil
	}
}

// required refuses an invocation without the flags: cobra's own check is no
// usage error.
func required(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f.Value.String() == "" {
			return usagef("%s: --%s is missing", cmd.CommandPath(), name)
		}
	}
	return nil
}
