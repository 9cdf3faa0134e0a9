package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/spawn"
)

// checkedLayer is a line of the doctor's table.
type checkedLayer struct {
	Layer    string `json:"layer"`
	On       bool   `json:"on"`
	Required bool   `json:"required"`
	Detail   string `json:"detail,omitempty"`
}

// errLayers says that the node would refuse to start here.
var errLayers = errors.New("this host does not give every layer that the configuration requires")

// Doctor tries every layer of the sandbox on this host by starting a spawner and
// prints what holds. It fails when a required layer does not.
func Doctor(cfg configs.Server, asJSON bool, out io.Writer) error {
	worker, err := workerBinary()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "bulkhead-doctor-")
	if err != nil {
		return fmt.Errorf("make scratch directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	s, err := spawn.Start(spawn.Config{WorkerBinary: worker, ScratchDir: scratch})
	if err != nil {
		return err
	}
	defer s.Close()
	var lines []checkedLayer
	missing := false
	required := cfg.Isolation.Required()
	for _, l := range s.Layers() {
		c := checkedLayer{l.Name, l.On, slices.Contains(required, l.Name), l.Detail}
		missing = missing || c.Required && !c.On
		lines = append(lines, c)
	}
	if err := printLayers(lines, asJSON, out); err != nil {
		return err
	}
	if missing {
		return errLayers
	}
	return nil
}

func printLayers(lines []checkedLayer, asJSON bool, out io.Writer) error {
	if asJSON {
		return json.NewEncoder(out).Encode(lines)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "LAYER\tHERE\tREQUIRED\tDETAIL")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Layer, word(l.On, "on", "off"), word(l.Required, "yes", "no"), l.Detail)
	}
	return w.Flush()
}

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
