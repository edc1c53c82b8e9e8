// Package ocf is the contract between a resource agent and the resource manager that calls it: the Open Cluster Framework
// Resource Agent API, version 1.1 (https://github.com/ClusterLabs/OCF-spec/blob/master/ra/1.1/resource-agent-api.md), as
// Pacemaker implements it.
//
// ParseEnvironment reads the environment as a value. Every failure is an error with an exit code (Error, CodeOf), and becomes one line for
// the operator (ExitReason). AcquireLock serialises the actions on one resource on one node. The package is independent of what the agent
// does, and never ends the process.
package ocf
