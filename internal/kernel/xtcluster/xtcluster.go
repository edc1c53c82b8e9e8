// Package xtcluster is the way into iptables' match cluster (net/netfilter/xt_cluster.c), for hosts whose firewall is iptables. It filters
// in a chain of its own in the mangle table; ARP is mangled in an nftables table, or by arptables where the kernel has none.
package xtcluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/ocf"
)

// legacyTables lists the tables of iptables-legacy that are there in the network namespace of the thread that reads it. To ask
// iptables-legacy would make them.
const legacyTables = "/proc/thread-self/net/ip_tables_names"

// Conn is a connection to the iptables of one network namespace.
type Conn struct {
	NFTables *nftables.Conn

	programs map[string]*xtables.Program // by flavour
}

var _ clusterip.TableKernel = (*Conn)(nil)

// Supports implements clusterip.TableKernel.
func (c *Conn) Supports(ctx context.Context, _ clusterip.Layout) (clusterip.Answer, error) {
	if _, err := c.program(ctx, xtables.System); err != nil {
		return clusterip.No, err
	}
	return xtables.KnowsMatch("cluster", "CONFIG_NETFILTER_XT_MATCH_CLUSTER")
}

func (c *Conn) program(ctx context.Context, flavours ...string) (*xtables.Program, error) {
	if program, ok := c.programs[flavours[0]]; ok {
		return program, nil
	}
	program, err := xtables.Open(ctx, flavours...)
	if err != nil {
		return nil, err
	}
	if c.programs == nil {
		c.programs = map[string]*xtables.Program{}
	}
	c.programs[flavours[0]] = program
	return program, nil
}

// chains lists our own chains by the flavour of iptables that has them. No program is asked for that, so that it costs next to nothing
// where there are none.
func (c *Conn) chains(ctx context.Context) (map[string][]string, error) {
	names := map[string][]string{}
	ours := func(all []string) []string {
		return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	}
	nft, err := c.NFTables.ChainNames(ctx, table)
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return nil, err
	}
	if found := ours(nft); len(found) > 0 {
		names[xtables.NFT] = found
	}
	if there, err := hasTable(legacyTables, table); err != nil || !there {
		return names, err
	}
	program, err := c.program(ctx, xtables.Legacy, xtables.System)
	if err != nil {
		return nil, err
	}
	legacy, err := program.ListChains(table)
	if err != nil {
		return nil, fmt.Errorf("list the chains of %s: %w", table, err)
	}
	if found := ours(legacy); len(found) > 0 {
		names[xtables.Legacy] = found
	}
	return names, nil
}

// hasTable tells whether a list of the kernel's has a table. Where what keeps such tables is not loaded, there is no list.
func hasTable(list, name string) (bool, error) {
	tables, err := os.ReadFile(list) //nolint:gosec // one of two in /proc
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(tables)), name), err
}

// read returns what there is for an address, and the program that it was laid by; none if there is nothing.
func (c *Conn) read(ctx context.Context, address netip.Addr) (r ruleset, program *xtables.Program, err error) {
	names, err := c.chains(ctx)
	if err != nil {
		return r, nil, err
	}
	for _, flavour := range []string{xtables.NFT, xtables.Legacy} {
		for _, mark := range []string{"", xtables.Twin} {
			name := chainName(address, mark)
			if !slices.Contains(names[flavour], name) {
				continue
			}
			if program == nil {
				if program, err = c.program(ctx, flavour, xtables.System); err != nil {
					return r, nil, err
				}
				if r.prerouting, err = program.Rules(table, chain); err != nil {
					return r, nil, err
				}
				r.chains = map[string][]xtables.Rule{}
			}
			if r.chains[mark], err = program.Rules(table, name); err != nil {
				return r, nil, err
			}
		}
		if program != nil {
			return r, program, nil
		}
	}
	return r, nil, nil
}

// ObserveTables implements clusterip.TableKernel.
func (c *Conn) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	r, program, err := c.read(ctx, address)
	if err != nil {
		return clusterip.Tables{}, err
	}
	if program == nil {
		left, err := c.arp().isThere(ctx, address)
		if left {
			return clusterip.Tables{Present: true, Damage: []string{"iptables' chain " + chainName(address, "") + " is gone"}}, err
		}
		return clusterip.Tables{}, err
	}
	tables := r.judge(address)
	if tables.Laid == nil {
		return tables, nil
	}
	damage, err := c.arp().observe(ctx, *tables.Laid)
	tables.Damage = append(tables.Damage, damage...)
	return tables, err
}

// Layouts implements clusterip.TableKernel.
func (c *Conn) Layouts(ctx context.Context) ([]clusterip.Layout, error) {
	names, err := c.chains(ctx)
	if err != nil {
		return nil, err
	}
	var layouts []clusterip.Layout
	for flavour, chains := range names {
		program, err := c.program(ctx, flavour, xtables.System)
		if err != nil {
			return nil, err
		}
		for _, name := range chains {
			rules, err := program.Rules(table, name)
			if err != nil {
				return nil, err
			}
			for _, rule := range rules {
				layout, err := rule.Layout()
				known := func(l clusterip.Layout) bool { return l.Address() == layout.Address() }
				if err == nil && rule.IsStamped() && !slices.ContainsFunc(layouts, known) {
					layouts = append(layouts, layout)
				}
			}
		}
	}
	return layouts, nil
}

// ApplyTables implements clusterip.TableKernel. Each command to iptables is one transaction.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	switch step := step.(type) {
	case clusterip.LayTables:
		return c.lay(ctx, step)
	case clusterip.Own:
		return c.change(ctx, step.Address, func(program *xtables.Program, name string, laid clusterip.Layout, owned []clusterip.Bucket) error {
			for _, bucket := range step.Buckets {
				place, _ := slices.BinarySearch(owned, bucket)
				if err := program.Insert(table, name, firstBucket+place, bucketRule(laid, bucket)...); err != nil {
					return err
				}
				owned = slices.Insert(owned, place, bucket)
			}
			return nil
		})
	case clusterip.Disown:
		return c.change(ctx, step.Address, func(program *xtables.Program, name string, laid clusterip.Layout, _ []clusterip.Bucket) error {
			var errs []error
			for _, bucket := range step.Buckets {
				errs = append(errs, program.Delete(table, name, bucketRule(laid, bucket)...))
			}
			return errors.Join(errs...)
		})
	case clusterip.RemoveTables:
		r, program, err := c.read(ctx, step.Address)
		if err != nil {
			return err
		}
		// The chain last, which says whose the rest is.
		return errors.Join(bypass(program, step.Address, r), c.arp().remove(ctx, step.Address), discard(program, step.Address, r))
	default:
		return fmt.Errorf("%s: not a step for xt_cluster", step)
	}
}

// change does something to the chain that packets for an address go through.
func (c *Conn) change(
	ctx context.Context, address netip.Addr, do func(program *xtables.Program, name string, laid clusterip.Layout, owned []clusterip.Bucket) error,
) error {
	r, program, err := c.read(ctx, address)
	if err != nil {
		return err
	}
	tables := r.judge(address)
	if program == nil || tables.Laid == nil {
		return fmt.Errorf("there is no chain of %s whose stamp can be read", address)
	}
	mark, _ := r.live(address)
	return do(program, chainName(address, mark), *tables.Laid, tables.Owned)
}

// lay makes a chain beside the one that may be there, sends packets to it first of all, and then takes away what was there before: in
// between both filter.
func (c *Conn) lay(ctx context.Context, step clusterip.LayTables) error {
	address := step.Layout.Address()
	before, program, err := c.read(ctx, address)
	if err != nil {
		return err
	}
	if program == nil {
		if program, err = c.program(ctx, xtables.System, xtables.NFT, xtables.Legacy); err != nil {
			return err
		}
	}
	mark := ""
	if live, ok := before.live(address); ok && live == "" {
		mark = xtables.Twin
	}
	// What is left of a try that was interrupted is in the way.
	if rules, ok := before.chains[mark]; ok {
		interrupted := ruleset{prerouting: before.prerouting, chains: map[string][]xtables.Rule{mark: rules}}
		delete(before.chains, mark)
		if err := remove(program, address, interrupted); err != nil {
			return err
		}
	}
	if err := c.layChain(ctx, program, chainName(address, mark), step); err != nil {
		return explain(err)
	}
	if err := program.Insert(table, chain, 1, jump(address, mark)...); err != nil {
		return err
	}
	return remove(program, address, before)
}

// layChain makes a chain and fills it: first the stamp, which says whose it is.
func (c *Conn) layChain(ctx context.Context, program *xtables.Program, name string, step clusterip.LayTables) error {
	if err := program.NewChain(table, name); err != nil {
		return err
	}
	rules := chainRules(step.Layout, step.Keep)
	last := len(rules) - 1
	if err := program.Append(table, name, rules[last]...); err != nil {
		return err
	}
	if err := c.arp().lay(ctx, step.Layout); err != nil {
		return err
	}
	for i, rule := range rules[:last] {
		if err := program.Insert(table, name, i+1, rule...); err != nil {
			return err
		}
	}
	return nil
}

// remove takes our chains of an address away, and first what sends packets there.
func remove(program *xtables.Program, address netip.Addr, r ruleset) error {
	return errors.Join(bypass(program, address, r), discard(program, address, r))
}

// bypass deletes what sends packets to our chains.
func bypass(program *xtables.Program, address netip.Addr, r ruleset) error {
	var errs []error
	for mark := range r.chains {
		for _, rule := range r.prerouting {
			if rule.Option("-j") == chainName(address, mark) || rule.Option("-g") == chainName(address, mark) {
				errs = append(errs, program.Delete(table, chain, rule.Spec()...))
			}
		}
	}
	return errors.Join(errs...)
}

// discard deletes our chains.
func discard(program *xtables.Program, address netip.Addr, r ruleset) error {
	var errs []error
	for mark := range r.chains {
		errs = append(errs, program.ClearAndDeleteChain(table, chainName(address, mark)))
	}
	return errors.Join(errs...)
}

// explain gives an error of iptables the exit code and the words that tell an admin what to do about it.
func explain(err error) error {
	if e := (*iptables.Error)(nil); errors.As(err, &e) &&
		(strings.Contains(e.Error(), "No chain/target/match by that name") || strings.Contains(e.Error(), "missing kernel module")) {
		return ocf.Errorf(ocf.ErrInstalled, "%w: this kernel has no match cluster (CONFIG_NETFILTER_XT_MATCH_CLUSTER), or none for this iptables (CONFIG_NFT_COMPAT)", err)
	}
	return err
}
