package configs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/bulkhead-ai/bulkhead/configs/internal/strictyaml"
)

// MaxBytes bounds a configuration file.
const MaxBytes = 1 << 20

// Errors is everything wrong with a file: one FILE:LINE: FIELD: REASON a line.
// Its Explain method adds the source lines.
type Errors = strictyaml.Errors

// Load reads and validates a configuration file. An error about its content is
// of type Errors.
func Load(path string) (Server, error) {
	f, err := os.Open(path)
	if err != nil {
		return Server{}, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	return Decode(path, f)
}

// Decode is Load from a reader; name stands for the file in errors.
func Decode(name string, r io.Reader) (Server, error) {
	s := Defaults()
	file, err := strictyaml.Parse(name, r, MaxBytes)
	if err != nil {
		return Server{}, err
	}
	docs := file.Docs()
	if len(docs) != 1 {
		reason := fmt.Sprintf("want one YAML document, got %d", len(docs))
		return Server{}, Errors{{File: name, Reason: reason}}
	}
	if errs := docs[0].Decode(&s); errs != nil {
		return Server{}, errs
	}
	var errs Errors
	for _, p := range s.problems() {
		errs = append(errs, docs[0].At(p.field, p.reason))
	}
	if errs != nil {
		slices.SortStableFunc(errs, func(a, b *strictyaml.Error) int { return a.Line - b.Line })
		return Server{}, errs
	}
	return s.completed(), nil
}

// completed fills in what follows from other fields.
func (s Server) completed() Server {
	if s.Admin.TokenFile == "" {
		s.Admin.TokenFile = filepath.Join(s.DataDir, "admin.token")
	}
	s.Access = s.Access.completed()
	if s.Cluster.KeyFile == "" && s.Cluster.KeyCredential == "" {
		s.Cluster.KeyCredential = "cluster-key"
	}
	if s.Cluster.Advertise == "" && dialable(s.Cluster.Listen) == nil {
		s.Cluster.Advertise = s.Cluster.Listen
	}
	return s
}

// Validate answers everything that is wrong with a configuration that was not
// read from a file, joined; nil means that it can be started.
func (s Server) Validate() error {
	var errs []error
	for _, p := range s.problems() {
		errs = append(errs, fmt.Errorf("%s: %s", p.field, p.reason))
	}
	return errors.Join(errs...)
}
