// Package nftreply decodes what the kernel's nf_tables replies over netlink into plain structs: tables, chains, rules, sets and
// elements, whoever made them. It makes no system calls.
//
// google/nftables has a decoder too, but it skips expressions that it does not know, so a changed rule would look unchanged.
// Here such an expression stays visible by its name.
package nftreply
