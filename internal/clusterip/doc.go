// Package clusterip is the domain: what a shared address is, who owns which hash bucket, what a node must lay into its
// kernel to answer for its buckets and for nothing else, and the actions of the resource agent on top of that.
//
// It makes no system calls. Every action observes (Kernel.Observe gives a State), plans (Plan is pure), applies
// (Kernel.Apply, one Step at a time) and observes again before it reports success. The kernel is the only store.
package clusterip
