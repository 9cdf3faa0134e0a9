// Package manifest is the desired state that operators write: YAML documents of
// a kind, metadata and a spec, decoded strictly and checked as a whole.
//
// Decode answers errors with file, line and reason. Check looks at a complete
// set of objects for references that lead nowhere and limits that match
// nothing; it is pure, so the command line, the admin API and the replicated
// state machine all run the same one and cannot disagree.
package manifest
