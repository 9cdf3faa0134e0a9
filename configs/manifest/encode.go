package manifest

import (
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
)

// Encode writes objects as YAML documents that Decode reads back. Credentials
// are left out: where one is sealed, a comment says so, and applying the document
// keeps it.
func Encode(w io.Writer, objects []Object) error {
	for i, o := range objects {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return fmt.Errorf("write yaml: %w", err)
			}
		}
		if err := encodeObject(w, o); err != nil {
			return err
		}
	}
	return nil
}

type document struct {
	Kind     Kind     `yaml:"kind"`
	Metadata metadata `yaml:"metadata"`
	Spec     any      `yaml:"spec"`
}

func encodeObject(w io.Writer, o Object) error {
	sealed := false
	if p := o.ProviderSpec; p != nil && p.Credential != nil {
		open := *p
		open.Credential, sealed = nil, true
		o.ProviderSpec = &open
	}
	spec := o.Spec()
	if spec == nil {
		return fmt.Errorf("encode %s: it has no spec of its kind", o.Ref)
	}
	text, err := yaml.MarshalWithOptions(document{
		Kind:     o.Kind,
		Metadata: metadata{Name: o.Name, Tenant: string(o.Tenant), Project: o.Project},
		Spec:     spec,
	}, yaml.IndentSequence(true))
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.Ref, err)
	}
	if sealed {
		text = append(text, "  # credential: sealed in the cluster, not shown; kept while base_url stays, replaced by {env: NAME} or {file: PATH}\n"...)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("write yaml: %w", err)
	}
	return nil
}
