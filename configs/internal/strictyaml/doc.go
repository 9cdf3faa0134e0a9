// Package strictyaml reads YAML that people write for a program that must not
// guess: every unknown field, double key, wrong type and lossy number is an
// error with file, line and reason, and all of them are reported at once.
//
// Guaranteed: the size is bounded before parsing and the nesting before the
// parser recurses; anchors, aliases, merge keys, tags and directives are
// refused, so a document is never larger in memory than on paper; numbers reach
// their fields as the text that was written, never through a float.
//
// Not done here: what values mean. Callers check that, and ask Doc.At for the
// line of a field to say it about.
package strictyaml
