// Package cli is the operator's command line: bulkhead VERB.
//
// It parses, asks the admin API and prints. What runs a node (server, dev,
// doctor, spawner) is handed in as Programs, so that this package knows nothing
// of the daemon.
//
// Guaranteed: exit status 0 for done, 1 for failed, 2 for wrong usage or a wrong
// configuration; errors are one line, "bulkhead: ...", on standard error, and
// standard output holds nothing but the result; -o json and -o csv are stable.
// The credential of a provider leaves this process sealed, and no secret is
// taken from an argument, where other users of the machine would see it, but the
// token of a link, which is spent with that; key unwrap - reads it instead.
package cli
