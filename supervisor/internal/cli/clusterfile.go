package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/spf13/cobra"
)

// maxJoinToken bounds a token file in bytes.
const maxJoinToken = 16 << 10

// offline is a command on a configuration file, whose node is stopped.
func (a *app) offline(use, short string, run func(cmd *cobra.Command, path string, cfg configs.Server) error) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "config"); err != nil {
				return err
			}
			if a.programs.Cluster == nil {
				return errors.New("this program was built without clusters")
			}
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return run(cmd, path, cfg)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file of the node (required)")
	return c
}

func (a *app) clusterInitCommand() *cobra.Command {
	return a.offline("init --config FILE", "Make a stopped node the first one of a cluster", func(cmd *cobra.Command, path string, cfg configs.Server) error {
		out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut)
		if err != nil {
			return err
		}
		f, err := a.programs.Cluster.Init(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if out != tableOut {
			return a.print(table{}, f)
		}
		return write(a.streams.Out, fmt.Appendf(nil, `cluster %s begins with node %s at %s

Start the node:            bulkhead server --config %s
For each other node, here: bulkhead cluster token
and there:                 bulkhead cluster join --config FILE --token TOKEN
                           bulkhead server --config FILE

The configurations must have the same cluster.name and the same cluster key, and each a
node_id of its own and a cluster.listen address that the others reach.
`, printable(f.ID), printable(f.Node), printable(f.Addr), path))
	})
}

func (a *app) clusterJoinCommand() *cobra.Command {
	var token, file string
	var peers []string
	c := a.offline("join --config FILE --token TOKEN", "Make a stopped, empty node a member of a cluster", func(cmd *cobra.Command, path string, cfg configs.Server) error {
		secret, err := a.joinToken(token, file)
		if err != nil {
			return err
		}
		if err := a.programs.Cluster.Join(cmd.Context(), cfg, secret, peers); err != nil {
			return err
		}
		return write(a.streams.Out, fmt.Appendf(nil, "node %s is a member; start it: bulkhead server --config %s\n", printable(cfg.NodeID), path))
	})
	f := c.Flags()
	f.StringVar(&token, "token", "", "from `bulkhead cluster token`; - reads it from standard input")
	f.StringVar(&file, "token-from", "", "file with the token, which other users of the machine then do not see among the arguments")
	f.StringSliceVar(&peers, "peer", nil, "cluster address of a member, host:port, beside those in the token; may be repeated")
	return c
}

// joinToken takes the token from where the operator put it.
func (a *app) joinToken(token, file string) (string, error) {
	var in io.Reader = strings.NewReader(token)
	switch {
	case token == "" && file == "":
		return "", usagef("bulkhead cluster join: --token is missing")
	case token != "" && file != "":
		return "", usagef("bulkhead cluster join: want one of --token and --token-from")
	case token == "-":
		in = a.streams.In
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("open token: %w", err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxJoinToken))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	secret := strings.TrimSpace(string(raw))
	if secret == "" || strings.ContainsAny(secret, " \t\r\n") {
		return "", errors.New("the token is empty or more than one word")
	}
	return secret, nil
}

func (a *app) clusterRecoverCommand() *cobra.Command {
	var voters []string
	c := a.offline("recover --config FILE --voter ID", "Go on with the nodes that are left when a majority is lost for good", func(cmd *cobra.Command, _ string, cfg configs.Server) error {
		if len(voters) == 0 {
			voters = []string{cfg.NodeID}
		}
		if err := a.programs.Cluster.Recover(cmd.Context(), cfg, voters); err != nil {
			return err
		}
		return write(a.streams.Out, fmt.Appendf(nil, "the voters are now %s; start this node first, and the others after the same command on each\n", printable(strings.Join(voters, ", "))))
	})
	c.Flags().StringSliceVar(&voters, "voter", nil, "who votes from now on, as ID or ID=HOST:PORT; may be repeated (default: this node alone)")
	return c
}
