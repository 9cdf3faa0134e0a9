package strictyaml

import (
	"fmt"
	"strings"
)

// Error is one thing wrong at one place of a file.
type Error struct {
	File   string
	Line   int    // 1-based; 0 = the file as a whole
	Column int    // 1-based, in characters; 0 = the whole line
	Field  string // path such as "spec.prices[0].input"; "" = the document
	Reason string
	// Excerpt shows the line with its neighbours and a mark below the column.
	Excerpt string
}

// Error prints FILE:LINE: FIELD: REASON on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Errors is everything wrong with a file, in the order of its lines.
type Errors []*Error

// Error prints one line per error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Explain prints like Error, each line followed by its source excerpt.
func (es Errors) Explain() string {
	var b strings.Builder
	for _, e := range es {
		b.WriteString(e.Error())
		b.WriteByte('\n')
		b.WriteString(e.Excerpt)
	}
	return b.String()
}

// excerpt shows the line before, the line itself and a caret. Long lines are cut
// so that a hostile file cannot fill a log.
func excerpt(lines []string, line, column int) string {
	const width = 120
	var b strings.Builder
	for n := line - 1; n <= line; n++ {
		if n < 1 || n > len(lines) {
			continue
		}
		mark := ' '
		if n == line {
			mark = '>'
		}
		fmt.Fprintf(&b, "%c %4d | %s\n", mark, n, printable(lines[n-1], width))
	}
	if column > 0 && column <= width && line <= len(lines) {
		b.WriteString(strings.Repeat(" ", 9+column-1) + "^\n")
	}
	return b.String()
}

// printable replaces control characters, which could rewrite a terminal, and
// cuts after max characters.
func printable(s string, max int) string {
	out := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
	if len(out) > max {
		return string(out[:max]) + "..."
	}
	return string(out)
}
