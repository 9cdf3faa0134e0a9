package state

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// A usage row is its eight names, its counters and its two amounts, each name
// and amount (a decimal) as length and bytes. Lengths and counters are
// uvarints.

// maxNameBytes bounds a name or amount of a row; receipts have shorter ones.
const maxNameBytes = 1 << 10

var errRow = errors.New("malformed usage row")

func (r *UsageRow) names() [8]*string {
	return [...]*string{&r.Tenant, &r.Project, &r.Env, &r.Account, &r.Key, &r.Model, &r.Day, &r.Currency}
}

func (r *UsageRow) counters() [17]*int64 {
	return [...]*int64{
		&r.Requests, &r.Served, &r.Failed, &r.TimedOut, &r.Cancelled,
		&r.RefusedLimit, &r.RefusedPolicy, &r.RefusedAuth, &r.InputTokens, &r.OutputTokens,
		&r.Usage.Input, &r.Usage.CacheRead, &r.Usage.CacheWrite, &r.Usage.Output, &r.Usage.Reasoning,
		&r.Unpriced, &r.Unknown,
	}
}

func (r *UsageRow) amounts() [2]*bulkhead.Total {
	return [...]*bulkhead.Total{&r.Cost, &r.UnknownCost}
}

func appendRow(b []byte, r *UsageRow) []byte {
	for _, s := range r.names() {
		b = appendName(b, *s)
	}
	for _, n := range r.counters() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	for _, t := range r.amounts() {
		if t.Cmp(bulkhead.Total{}) == 0 {
			b = appendName(b, "")
		} else {
			b = appendName(b, t.String())
		}
	}
	return b
}

func appendName(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func parseRow(b []byte) (*UsageRow, error) {
	r := new(UsageRow)
	for _, s := range r.names() {
		if !takeName(&b, s) {
			return nil, errRow
		}
	}
	for _, c := range r.counters() {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > math.MaxInt64 {
			return nil, errRow
		}
		*c, b = int64(n), b[size:]
	}
	for _, t := range r.amounts() {
		var s string
		if !takeName(&b, &s) {
			return nil, errRow
		}
		if s == "" {
			continue
		}
		v, err := bulkhead.ParseTotal(s)
		if err != nil {
			return nil, err
		}
		*t = v
	}
	if len(b) != 0 {
		return nil, errRow
	}
	return r, nil
}

func takeName(b *[]byte, to *string) bool {
	n, size := binary.Uvarint(*b)
	if size <= 0 || n > maxNameBytes || n > uint64(len(*b)-size) {
		return false
	}
	*to = string((*b)[size : size+int(n)])
	*b = (*b)[size+int(n):]
	return true
}

// A line of the audit trail is its two numbers, the name of its log and the line.

var errLine = errors.New("malformed line of the audit trail")

func appendLine(b []byte, l *AuditLine) []byte {
	b = binary.AppendUvarint(b, l.N)
	b = binary.AppendUvarint(b, l.Seq)
	b = appendName(b, l.Log)
	return append(b, l.Line...)
}

// parseLine takes any bytes as the line itself: the numbers say where it belongs.
func parseLine(b []byte) (*AuditLine, error) {
	l := new(AuditLine)
	for _, to := range [...]*uint64{&l.N, &l.Seq} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n == 0 {
			return nil, errLine
		}
		*to, b = n, b[size:]
	}
	if !takeName(&b, &l.Log) || len(b) == 0 || len(b) > audit.MaxLine {
		return nil, errLine
	}
	l.Line = slices.Clone(b)
	return l, nil
}
