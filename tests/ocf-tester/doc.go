// Package ocftester holds the agent to its contract, from outside: it installs the product with `make install`, and calls it
// as its callers do (Pacemaker, pcs, crm_resource, Debian's ocf-tester, an admin) in a network namespace of its own. The
// tests check what they see: exit status, standard output, standard error, and what is left in the kernel and on disk.
package ocftester
