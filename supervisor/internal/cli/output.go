package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goccy/go-yaml"
)

// format is the value of -o.
type format string

const (
	tableOut format = "table"
	jsonOut  format = "json"
	yamlOut  format = "yaml"
	csvOut   format = "csv"
)

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	if !slices.Contains([]format{tableOut, jsonOut, yamlOut, csvOut}, format(s)) {
		return fmt.Errorf("%q is no format; one of table, json, yaml, csv", s)
	}
	*f = format(s)
	return nil
}

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// or answers the chosen format, or the default, if the command has it.
func (f format) or(byDefault format, allowed ...format) (format, error) {
	if f == "" {
		return byDefault, nil
	}
	if !slices.Contains(allowed, f) {
		return "", usagef("-o %s: this command has %v", f, allowed)
	}
	return f, nil
}

// table is a result as rows of text.
type table struct {
	columns []string
	rows    [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes a result in the chosen format: t for people and spreadsheets,
// value, the same as JSON encodes it, for programs.
func (a *app) print(t table, value any) error {
	out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut)
	if err != nil {
		return err
	}
	switch out {
	case jsonOut:
		return writeJSON(a.streams.Out, value)
	case yamlOut:
		return writeYAML(a.streams.Out, value)
	case csvOut:
		return t.writeCSV(a.streams.Out)
	}
	return t.write(a.streams.Out)
}

func writeJSON(w io.Writer, value any) error {
	raw, err := encodeJSON(value)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("indent json: %w", err)
	}
	out.WriteByte('\n')
	return write(w, out.Bytes())
}

func encodeJSON(value any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, fmt.Errorf("encode json: %w", err)
	}
	return out.Bytes(), nil
}

func writeYAML(w io.Writer, value any) error {
	raw, err := encodeJSON(value)
	if err != nil {
		return err
	}
	out, err := yaml.JSONToYAML(raw)
	if err != nil {
		return fmt.Errorf("encode yaml: %w", err)
	}
	return write(w, out)
}

func (t *table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.ReplaceAll(strings.Join(t.columns, "\t"), "_", " ")))
	for _, row := range t.rows {
		shown := make([]string, len(row))
		for i, cell := range row {
			if shown[i] = printable(cell); shown[i] == "" {
				shown[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(shown, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func (t *table) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write(t.columns)
	for _, row := range t.rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			safe[i] = harmless(cell)
		}
		out.Write(safe)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// harmless puts a quote before what a spreadsheet would run as a formula. A
// plain negative number is none.
func harmless(cell string) string {
	if cell == "" || !strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
		return cell
	}
	if cell[0] == '-' && len(cell) > 1 && strings.Trim(cell[1:], "0123456789.") == "" {
		return cell
	}
	return "'" + cell
}

// printable replaces what could rewrite a terminal: names and messages may come
// from anybody.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
