// Package metadata says what the agent can be told and asked: one table of parameters and one of actions. From them come the
// meta-data document (OCF 1.1, "Resource Agent Meta-Data"), the manual docs/parameters.md, the defaults, and the parser of what
// the operator gave. A parameter is added in Parameters and nowhere else.
//
// Only what a value says by itself is checked here. Whether values go together, and whether they suit this host, is for the
// package that knows what they are for.
package metadata
