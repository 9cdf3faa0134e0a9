// Package configs is the configuration of a node: what the operator decides
// before the cluster knows anything. What tenants may do is desired state and
// lives in configs/manifest.
//
// A file is read strictly: an unknown field, a wrong type or a value out of
// range is an error with file, line and reason, and all of them are reported at
// once. A field that is left out has the value of Defaults. Values are taken as
// they are written: nothing is expanded, and nothing comes from the environment.
package configs
