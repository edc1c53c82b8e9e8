// Package metadata has the tables of the agent's parameters and actions. They are the source of the meta-data document (OCF 1.1, "Resource
// Agent Meta-Data"), of the manual docs/parameters.md, of the defaults, and of the parser of given values. A parameter is added in
// Parameters and nowhere else.
//
// The parser checks each value alone. Package clusterip checks whether the values fit together and suit the node.
package metadata
