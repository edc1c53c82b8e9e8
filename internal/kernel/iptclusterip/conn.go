// Package iptclusterip is the way into iptables' target CLUSTERIP, which kernels before 6.3 have (net/ipv4/netfilter/ipt_CLUSTERIP.c). The
// target itself filters, mangles ARP and lets the NIC take the cluster MAC in; which buckets are held is written to a file below
// /proc.
package iptclusterip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/ocf"
)

// MaxBuckets is CLUSTERIP_MAX_NODES (include/uapi/linux/netfilter_ipv4/ipt_CLUSTERIP.h).
const MaxBuckets = clusterip.MaxTargetBuckets

// files has one for each address, in the network namespace of the thread that reads it.
const files = "/proc/thread-self/net/ipt_CLUSTERIP"

// Conn is a connection to the old tables of one network namespace. The program is looked for when it is needed.
type Conn struct {
	iptables *xtables.Program
}

var _ clusterip.TableKernel = (*Conn)(nil)

// open finds the iptables that speaks to the kernel's old tables: the target cannot be had through nf_tables.
func (c *Conn) open(ctx context.Context) (program *xtables.Program, err error) {
	if c.iptables == nil {
		c.iptables, err = xtables.Open(ctx, xtables.Legacy, xtables.System)
	}
	return c.iptables, err
}

// Supports implements clusterip.TableKernel.
func (c *Conn) Supports(ctx context.Context, _ clusterip.Layout) (clusterip.Answer, error) {
	if _, err := c.open(ctx); err != nil {
		return clusterip.No, err
	}
	return xtables.KnowsTarget("CLUSTERIP", "CONFIG_IP_NF_TARGET_CLUSTERIP, which is gone since Linux 6.3")
}

// rules lists the rules of the chain. Where the target has no file there is no rule of it, and no program is needed to tell.
func (c *Conn) rules(ctx context.Context) ([]listed, error) {
	held, err := os.ReadDir(files)
	if len(held) == 0 && (err == nil || errors.Is(err, os.ErrNotExist)) { // the module may not be loaded, or not exist
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	program, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := program.Rules(table, chain)
	rules := make([]listed, len(all))
	for i, rule := range all {
		rules[i] = listed{rule}
	}
	return rules, err
}

// ObserveTables implements clusterip.TableKernel.
func (c *Conn) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	rules, err := c.rules(ctx)
	if err != nil {
		return clusterip.Tables{}, err
	}
	tables := judge(rules, address)
	if !tables.Present {
		return tables, nil
	}
	text, err := os.ReadFile(filepath.Join(files, address.String()))
	switch {
	case errors.Is(err, os.ErrNotExist):
		tables.Damage = append(tables.Damage, fmt.Sprintf("the kernel has no file %s", filepath.Join(files, address.String())))
		return tables, nil
	case err != nil:
		return tables, err
	}
	tables.Owned, err = parseNodes(string(text))
	return tables, err
}

// judge says what the rules for an address are: whose, how they were laid, and what differs from that.
func judge(rules []listed, address netip.Addr) clusterip.Tables {
	var tables clusterip.Tables
	var ours []listed
	for _, r := range rules {
		switch {
		case !r.isFor(address):
		case r.IsStamped():
			ours = append(ours, r)
		default:
			tables.Foreign = append(tables.Foreign, "iptables' CLUSTERIP rule for "+address.String())
		}
	}
	if len(ours) == 0 {
		return tables
	}
	tables.Present = true
	damage := func(format string, args ...any) { tables.Damage = append(tables.Damage, fmt.Sprintf(format, args...)) }
	laid, err := ours[0].Layout()
	if err != nil {
		damage("the stamp of the rule in %s cannot be read: %v", chain, err)
		return tables
	}
	tables.Laid = &laid
	if len(ours) > 1 {
		damage("the rule in %s is there %d times", chain, len(ours))
	}
	if ours[0].differsFrom(laid) {
		damage("the rule in %s is not as laid: %s", chain, strings.Join(ours[0].Rule, " "))
	}
	for _, r := range rules[:slices.IndexFunc(rules, func(r listed) bool { return r.isFor(address) && r.IsStamped() })] {
		if !r.LetsOn() {
			damage("a rule before ours in %s may let packets for the address past it: %s", chain, strings.Join(r.Rule, " "))
		}
	}
	return tables
}

// Layouts implements clusterip.TableKernel.
func (c *Conn) Layouts(ctx context.Context) ([]clusterip.Layout, error) {
	rules, err := c.rules(ctx)
	if err != nil {
		return nil, err
	}
	var layouts []clusterip.Layout
	for _, r := range rules {
		if layout, err := r.Layout(); err == nil && r.IsStamped() {
			layouts = append(layouts, layout)
		}
	}
	return layouts, nil
}

// ApplyTables implements clusterip.TableKernel.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	switch step := step.(type) {
	case clusterip.LayTables:
		return c.lay(ctx, step)
	case clusterip.Own:
		return tell(step.Address, '+', step.Buckets, unix.ENOMEM) // clusterip_add_node: it is held already
	case clusterip.Disown:
		return tell(step.Address, '-', step.Buckets, unix.ENOENT) // clusterip_del_node: it is not held
	case clusterip.RemoveTables:
		rules, err := c.rules(ctx)
		if err != nil {
			return err
		}
		return c.remove(ctx, step.Address, rules)
	default:
		return fmt.Errorf("%s: not a step for the CLUSTERIP target", step)
	}
}

// lay puts a new rule first, and then takes away what was there before: in between the target filters twice, never not at all.
func (c *Conn) lay(ctx context.Context, step clusterip.LayTables) error {
	program, err := c.open(ctx)
	if err != nil {
		return err
	}
	before, err := c.rules(ctx)
	if err != nil {
		return err
	}
	first := append(slices.Clone(step.Keep), step.Next...)
	if len(first) == 0 {
		return errors.New("the CLUSTERIP target cannot be laid without a bucket")
	}
	mark := ""
	if slices.ContainsFunc(before, func(r listed) bool { return r.isFor(step.Layout.Address()) && r.IsStamped() && r.Mark() == "" }) {
		mark = xtables.Twin
	}
	if err := program.Insert(table, chain, 1, ruleOf(step.Layout, mark, first[0])...); err != nil {
		return explain(err)
	}
	if err := c.remove(ctx, step.Layout.Address(), before); err != nil {
		return err
	}
	return tell(step.Layout.Address(), '+', step.Keep, unix.ENOMEM)
}

// remove deletes those of the rules that are ours for an address.
func (c *Conn) remove(ctx context.Context, address netip.Addr, rules []listed) error {
	program, err := c.open(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rules {
		if r.isFor(address) && r.IsStamped() {
			errs = append(errs, explain(program.Delete(table, chain, r.Spec()...)))
		}
	}
	return errors.Join(errs...)
}

// tell writes to the target's file of an address, for each bucket. An answer that says that it is so already is none.
func tell(address netip.Addr, sign byte, buckets []clusterip.Bucket, already error) error {
	for _, bucket := range buckets {
		f, err := os.OpenFile(filepath.Join(files, address.String()), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, os.ErrNotExist) && sign == '-' {
			return nil // with the file all of it is gone
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(string(sign) + nodeOf(bucket) + "\n")
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil && !errors.Is(err, already) {
			return err
		}
	}
	return nil
}

// explain gives an error of iptables the exit code and the words that tell an admin what to do about it.
func explain(err error) error {
	if e := (*iptables.Error)(nil); errors.As(err, &e) && strings.Contains(e.Error(), "No chain/target/match by that name") {
		return ocf.Errorf(ocf.ErrInstalled, "%w: this kernel has no CLUSTERIP target (CONFIG_IP_NF_TARGET_CLUSTERIP; it is gone since Linux 6.3)", err)
	}
	return err
}
