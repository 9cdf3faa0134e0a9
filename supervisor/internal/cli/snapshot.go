package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/spf13/cobra"
)

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "Save, restore and inspect backups of the replicated state",
		a.snapshotSaveCommand(), a.snapshotRestoreCommand(), a.snapshotInspectCommand())
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "save FILE", Short: "Write a backup: everything but the cluster key and the key shares (see cluster shares save)", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			info, err := a.saveSnapshot(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return a.print(snapshotTable(info), info)
		},
	}
}

// saveSnapshot gives the file its name only when it is whole, verified and on
// disk: a backup that is found missing in an emergency is none.
func (a *app) saveSnapshot(ctx context.Context, cl *client, path string) (info wire.SnapshotInfo, err error) {
	f, err := durable.New(path)
	if err != nil {
		return info, fmt.Errorf("create snapshot: %w", err)
	}
	defer f.Discard()
	take := func(r io.Reader) error {
		if _, err := io.Copy(f, r); err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
		return nil
	}
	if err := cl.do(ctx, call{method: http.MethodGet, path: "/cluster/snapshot", stream: take}, nil); err != nil {
		return info, err
	}
	if err := rewind(f.File); err != nil {
		return info, fmt.Errorf("write snapshot: %w", err)
	}
	if info, err = a.inspect(f); err != nil {
		return info, err
	}
	if err := f.Commit(); err != nil {
		return info, fmt.Errorf("write snapshot: %w", err)
	}
	return info, nil
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func (a *app) inspect(r io.Reader) (wire.SnapshotInfo, error) {
	if a.programs.Cluster == nil {
		return wire.SnapshotInfo{}, errors.New("this program was built without clusters")
	}
	info, err := a.programs.Cluster.InspectSnapshot(r)
	if err != nil {
		return info, fmt.Errorf("inspect snapshot: %w", err)
	}
	return info, nil
}

func (a *app) snapshotInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Verify a backup and show what it holds", Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open snapshot: %w", err)
			}
			defer f.Close()
			info, err := a.inspect(f)
			if err != nil {
				return err
			}
			return a.print(snapshotTable(info), info)
		},
	}
}

func (a *app) snapshotRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put the whole cluster back to a backup", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			size, err := a.checkSnapshot(args[0])
			if err != nil {
				return err
			}
			r := call{method: http.MethodPut, path: "/cluster/snapshot", size: size, once: true, upload: func() (io.ReadCloser, error) {
				f, err := os.Open(args[0])
				if err != nil {
					return nil, fmt.Errorf("open snapshot: %w", err)
				}
				return a.progress(f, size), nil
			}}
			var done struct {
				Index uint64 `json:"index"`
			}
			if err := cl.do(cmd.Context(), r, &done); err != nil {
				return err
			}
			t := table{columns: []string{"index"}}
			t.add(strconv.FormatUint(done.Index, 10))
			return a.print(t, done)
		},
	}
}

// checkSnapshot verifies a file before anything is sent.
func (a *app) checkSnapshot(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open snapshot: %w", err)
	}
	defer f.Close()
	if _, err := a.inspect(f); err != nil {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("open snapshot: %w", err)
	}
	return st.Size(), nil
}

func snapshotTable(i wire.SnapshotInfo) table {
	t := table{columns: []string{"cluster", "index", "term", "tenants", "keys", "nodes", "size", "sha256"}}
	t.add(i.Cluster, strconv.FormatUint(i.Index, 10), strconv.FormatUint(i.Term, 10), strconv.Itoa(i.Tenants), strconv.Itoa(i.Keys),
		strings.Join(i.Nodes, " "), strconv.FormatInt(i.Size, 10), i.SHA256)
	return t
}
