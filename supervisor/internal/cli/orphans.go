package cli

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

// orphansKind is what get prints though it is no kind of desired state.
const orphansKind = "orphans"

// orphans prints what nobody seems to need or to answer for.
func (a *app) orphans(cmd *cobra.Command, tenant string, unusedDays int) error {
	if unusedDays < 0 || unusedDays > 3650 {
		return usagef("--unused-days %d: want 0 to 3650", unusedDays)
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	q := query("tenant", tenant)
	q.Set("unused_days", strconv.Itoa(unusedDays))
	var list wire.Orphans
	if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/orphans", query: q}, &list); err != nil {
		return err
	}
	t := table{columns: []string{"kind", "tenant", "project", "env", "name", "owner", "label", "reason", "why", "to_do", "created_at", "last_used"}}
	for _, o := range list.Orphans {
		t.add(o.Kind, string(o.Tenant), o.Project, o.Env, o.Name, o.Owner, o.Label, o.Reason, o.Why, o.ToDo, stamp(o.CreatedAt), stamp(o.LastUsed))
	}
	if a.output == "" || a.output == tableOut {
		t = t.pick("kind", "tenant", "project", "env", "name", "owner", "reason", "why", "to_do")
		defer func() {
			for _, what := range list.NotChecked {
				fmt.Fprintln(a.streams.Out, "not checked: "+printable(what))
			}
		}()
	}
	return a.print(t, list)
}
