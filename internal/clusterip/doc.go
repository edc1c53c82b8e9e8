// Package clusterip is the model of a shared address: the hash that spreads clients over buckets, the shared MAC, what a node must install
// in its kernel to answer for its buckets and for nothing else, and the pure decisions about that.
//
// Spec is what the parameters request, Layout is what is installed, State is what was observed. Plan returns the steps from a State to a
// Goal, Faults what differs between a State and a Layout. It makes no system calls: Kernel is what package agent needs of the node.
package clusterip
