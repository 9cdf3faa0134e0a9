package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) pluginCommand() *cobra.Command {
	return group("plugin", "Register provider adapters", a.pluginListCommand(), a.pluginAddCommand(), a.pluginRemoveCommand())
}

func (a *app) pluginListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List registered adapters", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Plugins
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/plugins"}, &list); err != nil {
				return err
			}
			return a.print(pluginTable(list.Plugins...), list.Plugins)
		},
	}
}

func (a *app) pluginAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME PATH", Short: "Upload an adapter's binary and register it by its SHA-256", Args: exactArgs("NAME", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := os.Stat(args[1])
			if err != nil {
				return fmt.Errorf("open plugin: %w", err)
			}
			if !st.Mode().IsRegular() {
				return fmt.Errorf("open plugin: %s is no file", args[1])
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			r := call{method: http.MethodPut, path: "/plugins/" + url.PathEscape(args[0]), size: st.Size(), upload: func() (io.ReadCloser, error) {
				f, err := os.Open(args[1])
				if err != nil {
					return nil, fmt.Errorf("open plugin: %w", err)
				}
				return a.progress(f, st.Size()), nil
			}}
			var p wire.RegisteredPlugin
			if err := cl.do(cmd.Context(), r, &p); err != nil {
				return err
			}
			return a.print(pluginTable(p), p)
		},
	}
}

func (a *app) pluginRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove an adapter that no provider uses", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.do(cmd.Context(), call{method: http.MethodDelete, path: "/plugins/" + url.PathEscape(args[0])}, nil)
		},
	}
}

func pluginTable(plugins ...wire.RegisteredPlugin) table {
	t := table{columns: []string{"name", "sha256", "size"}}
	for _, p := range plugins {
		t.add(p.Name, p.SHA256, strconv.FormatInt(p.Size, 10))
	}
	return t
}

// progress draws how much of a file was sent, on a terminal; elsewhere it is the
// file itself.
func (a *app) progress(f *os.File, size int64) io.ReadCloser {
	if !a.streams.Progress || size == 0 {
		return f
	}
	return &bar{file: f, size: size, to: a.streams.Err, shown: -1}
}

// bar is a file that draws as it is read.
type bar struct {
	file       *os.File
	size, sent int64
	shown      int64 // percent on the screen
	to         io.Writer
}

// Read implements io.Reader.
func (b *bar) Read(p []byte) (int, error) {
	n, err := b.file.Read(p)
	b.sent += int64(n)
	if percent := 100 * b.sent / b.size; percent != b.shown {
		b.shown = percent
		const width = 40
		done := int(percent) * width / 100
		fmt.Fprintf(b.to, "\r[%s%s] %3d %%", strings.Repeat("=", done), strings.Repeat(" ", width-done), percent)
		if percent == 100 {
			fmt.Fprintln(b.to)
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *bar) Close() error { return b.file.Close() }
