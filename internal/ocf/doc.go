// Package ocf is the contract between a resource agent and the resource manager that calls it: the Open Cluster Framework
// Resource Agent API, version 1.1 (https://github.com/ClusterLabs/OCF-spec/blob/master/ra/1.1/resource-agent-api.md), as
// Pacemaker speaks it.
//
// The environment comes in as a value (ParseEnvironment), parameters leave as typed values (Values), every failure is an
// error that carries an exit code (Error, CodeOf) and becomes one line for the operator (ExitReason). AcquireLock keeps the
// calls of one resource on one node apart. The package knows nothing of what the agent does, and ends no process.
package ocf
