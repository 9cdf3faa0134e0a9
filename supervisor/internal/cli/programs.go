package cli

import (
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/spf13/cobra"
)

func (a *app) serverCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "server --config FILE", Short: "Run a node", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config"); err != nil {
				return err
			}
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return a.programs.Server(cmd.Context(), cfg)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file of the node")
	return c
}

// loadConfig makes a file that cannot be read wrong usage too: whoever restarts
// the service on failure would only fail again.
func loadConfig(path string) (configs.Server, error) {
	cfg, err := configs.Load(path)
	if err != nil {
		return cfg, &usageError{err}
	}
	return cfg, nil
}

func (a *app) devCommand() *cobra.Command {
	opts := DevOptions{Out: a.streams.Out}
	c := &cobra.Command{
		Use: "dev", Short: "Run one node, or a cluster of three, with two demo tenants, for trying out", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Nodes != 1 && opts.Nodes != 3 {
				return usagef("--nodes %d: want 1 or 3", opts.Nodes)
			}
			data, err := filepath.Abs(opts.Data)
			if err != nil {
				return fmt.Errorf("find data folder: %w", err)
			}
			opts.Data = data
			return a.programs.Dev(cmd.Context(), opts)
		},
	}
	c.Flags().StringVar(&opts.Data, "data", "./.bulkhead", "folder for everything the node keeps")
	c.Flags().StringVar(&opts.Listen, "listen", "127.0.0.1:8080", "address for clients")
	c.Flags().StringVar(&opts.AdminListen, "admin-listen", "127.0.0.1:8081", "address for this command line")
	c.Flags().IntVar(&opts.Nodes, "nodes", 1, "1, or 3 for a cluster on loopback, a process each; the addresses are the first one's")
	return c
}

func (a *app) doctorCommand() *cobra.Command {
	var path string
	var launch launchOptions
	c := &cobra.Command{
		Use: "doctor", Short: "Show layer by layer what the sandbox can do on this machine; --launch: whether teams are ready for launch", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if launch.on {
				return a.launch(cmd, launch)
			}
			out, err := a.output.or(tableOut, tableOut, jsonOut)
			if err != nil {
				return err
			}
			opts := DoctorOptions{Config: configs.Defaults(), Output: string(out), Out: a.streams.Out}
			if path != "" {
				if opts.Config, err = loadConfig(path); err != nil {
					return err
				}
			}
			return a.programs.Doctor(cmd.Context(), opts)
		},
	}
	c.Flags().StringVar(&path, "config", "", "judge by this node's configuration")
	launch.flags(c)
	return c
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{a.programs.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			t := table{columns: []string{"version", "go", "platform"}}
			t.add(v.Version, v.Go, v.Platform)
			return a.print(t, v)
		},
	}
}

func (a *app) spawnerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "spawner", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			a.status = a.programs.Spawner()
			return nil
		},
	}
}
