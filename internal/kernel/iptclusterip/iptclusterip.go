// Package iptclusterip drives iptables' target CLUSTERIP, which kernels before 6.3 have (net/ipv4/netfilter/ipt_CLUSTERIP.c). The target
// itself filters packets, mangles ARP and adds the shared MAC to the interface's filter. The owned buckets are in a file below /proc.
package iptclusterip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
)

// MaxBuckets is CLUSTERIP_MAX_NODES (include/uapi/linux/netfilter_ipv4/ipt_CLUSTERIP.h).
const MaxBuckets = clusterip.MaxTargetBuckets

// files has one file for each address, in the network namespace of the thread that reads it.
const files = "/proc/thread-self/net/ipt_CLUSTERIP"

func fileOf(address netip.Addr) string { return filepath.Join(files, address.String()) }

var extension = xtables.Extension{
	Kind: xtables.Target, Name: "CLUSTERIP", Option: "CONFIG_IP_NF_TARGET_CLUSTERIP, which Linux 6.3 has removed",
}

// Conn is the way to the iptables rules of one network namespace.
type Conn struct{ programs xtables.Programs }

var _ clusterip.TableKernel = (*Conn)(nil)

// program is the iptables that writes to ip_tables: the target does not exist in nf_tables.
func (c *Conn) program(ctx context.Context) (*xtables.Program, error) {
	return c.programs.Open(ctx, xtables.Legacy, xtables.System)
}

// Supports implements clusterip.TableKernel.
func (c *Conn) Supports(ctx context.Context, _ clusterip.Layout) (clusterip.Answer, error) {
	if _, err := c.program(ctx); err != nil {
		return clusterip.No, err
	}
	return extension.IsInKernel()
}

// rules lists the rules of the chain. Where the target has no file there is no rule of it, and no program is run.
func (c *Conn) rules(ctx context.Context) ([]xtables.Rule, error) {
	addresses, err := os.ReadDir(files)
	if len(addresses) == 0 && (err == nil || errors.Is(err, os.ErrNotExist)) { // the module may not be loaded, or not exist
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	program, err := c.program(ctx)
	if err != nil {
		return nil, err
	}
	return program.Rules(table, chain)
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
	text, err := os.ReadFile(fileOf(address))
	switch {
	case errors.Is(err, os.ErrNotExist):
		tables.Faults = append(tables.Faults, "the kernel has no file "+fileOf(address))
		return tables, nil
	case err != nil:
		return tables, err
	}
	tables.Owned, err = parseNodes(string(text))
	return tables, err
}

// Layouts implements clusterip.TableKernel.
func (c *Conn) Layouts(ctx context.Context) ([]clusterip.Layout, error) {
	rules, err := c.rules(ctx)
	return xtables.Layouts(rules), err
}

// ApplyTables implements clusterip.TableKernel.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	switch step := step.(type) {
	case clusterip.InstallTables:
		return c.install(ctx, step)
	case clusterip.ChangeBuckets:
		if err := own(step.Address, step.Own); err != nil {
			return err
		}
		return release(step.Address, step.Release)
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

// install inserts a new rule, and then removes the old ones: in between packets are filtered twice, never unfiltered.
func (c *Conn) install(ctx context.Context, step clusterip.InstallTables) error {
	address := step.Layout.Address()
	program, err := c.program(ctx)
	if err != nil {
		return err
	}
	old, err := c.rules(ctx)
	if err != nil {
		return err
	}
	buckets := slices.Concat(step.Keep, step.Next)
	if len(buckets) == 0 {
		return errors.New("the CLUSTERIP target cannot be installed without a bucket")
	}
	mark := ""
	if slices.ContainsFunc(old, func(r xtables.Rule) bool { return isOurs(r, address) && r.Mark() == "" }) {
		mark = xtables.Twin
	}
	if err := program.Insert(table, chain, 1, ruleOf(step.Layout, mark, buckets[0])...); err != nil {
		return extension.Explain(err)
	}
	if err := c.remove(ctx, address, old); err != nil {
		return err
	}
	return own(address, step.Keep)
}

// remove deletes those of the rules that this agent has installed for an address.
func (c *Conn) remove(ctx context.Context, address netip.Addr, rules []xtables.Rule) error {
	program, err := c.program(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rules {
		if isOurs(r, address) {
			errs = append(errs, extension.Explain(program.Delete(table, chain, r.Spec()...)))
		}
	}
	return errors.Join(errs...)
}

// own and release change which buckets the target accepts. It refuses a bucket that it accepts already (clusterip_add_node), or does not
// accept (clusterip_del_node); without a rule there is no file.
func own(address netip.Addr, buckets []clusterip.Bucket) error {
	return change(address, "+", buckets, unix.ENOMEM)
}

func release(address netip.Addr, buckets []clusterip.Bucket) error {
	return change(address, "-", buckets, unix.ENOENT)
}

func change(address netip.Addr, sign string, buckets []clusterip.Bucket, refusal error) error {
	for _, bucket := range buckets {
		if err := write(address, sign+nodeOf(bucket)); err != nil && !errors.Is(err, refusal) {
			return err
		}
	}
	return nil
}

// write writes a line to the target's file of an address.
func write(address netip.Addr, line string) error {
	f, err := os.OpenFile(fileOf(address), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
