// Escape is the fixture of the sandbox's tests: a program that is started as a
// worker, as a plugin or, to show that an attempt works where nothing forbids
// it, as an ordinary process, and that tries to get out.
//
//	bulkhead-worker tenant=T    orders on descriptor 3, which also takes the answers
//	bulkhead-worker plugin      as a worker binary would: it becomes the plugin
//	bulkhead-provider-NAME ...  orders in ESCAPE_ORDERS, answers on 1
//	escape control              orders on 0, answers on 1; locks nothing down
//	escape victim               waits until 0 ends
//
// It never runs as root where it is not confined: the tests see to that.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lockdown"
)

// orders say what to try. An empty list of attempts: lock down, answer, end.
type orders struct {
	Sandbox  control.Sandbox   `json:"sandbox"`
	Profile  lockdown.Profile  `json:"profile"`
	Attempts []string          `json:"attempts"`
	Params   map[string]string `json:"params"`
	Wait     bool              `json:"wait"` // stay until the orders' stream ends
}

// answer is the result of locking down, and then of each attempt.
type answer struct {
	Name   string          `json:"name,omitempty"`
	Err    string          `json:"err,omitempty"` // "" = it worked; an errno's name where there is one
	Layers []control.Layer `json:"layers,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
}

func run() error {
	verb := ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch {
	case strings.HasPrefix(os.Args[0], "bulkhead-provider-"):
		return attack(strings.NewReader(os.Getenv("ESCAPE_ORDERS")), os.Stdout, false)
	case verb == control.PluginVerb:
		return lockdown.BecomePlugin()
	case verb == "control":
		return attack(os.Stdin, os.Stdout, false)
	case verb == "victim":
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case strings.HasPrefix(verb, "tenant="):
		f := os.NewFile(control.FDControl, "control")
		return attack(f, f, true)
	}
	return errors.New("not to be run by hand")
}

func attack(in io.Reader, out io.Writer, lock bool) error {
	decoder := json.NewDecoder(in)
	var o orders
	if err := decoder.Decode(&o); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	encoder := json.NewEncoder(out)
	if lock {
		layers, err := lockdown.Apply(o.Sandbox, o.Profile)
		a := answer{Layers: layers}
		if err != nil {
			a.Err = err.Error()
		}
		if err := encoder.Encode(a); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
	for _, name := range o.Attempts {
		try := attempts()[name]
		if try == nil {
			return fmt.Errorf("no attempt %q", name)
		}
		if err := encoder.Encode(answer{Name: name, Err: code(try(o.Params))}); err != nil {
			return err
		}
	}
	if o.Wait {
		_ = decoder.Decode(&o)
	}
	return nil
}

// code names an error the same way wherever it comes from.
func code(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return errnoName(errno)
	}
	return err.Error()
}
