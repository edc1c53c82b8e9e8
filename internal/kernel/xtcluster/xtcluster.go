// Package xtcluster drives iptables' match cluster (net/netfilter/xt_cluster.c), for nodes whose firewall is iptables. It filters in a
// chain of its own in the mangle table. ARP is mangled in an nftables table, or by arptables where the kernel has none.
package xtcluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/ocf"
)

// legacyTables lists the tables of iptables-legacy that exist in the network namespace of the thread that reads it. The program
// iptables-legacy would create them.
const legacyTables = "/proc/thread-self/net/ip_tables_names"

var extension = xtables.Extension{
	Kind: xtables.Match, Name: "cluster", Option: "CONFIG_NETFILTER_XT_MATCH_CLUSTER, with iptables-nft also CONFIG_NFT_COMPAT",
}

// Conn is the way to the iptables rules of one network namespace.
type Conn struct {
	NFTables *nftables.Conn

	programs xtables.Programs
}

var (
	_ clusterip.TableKernel   = (*Conn)(nil)
	_ clusterip.TrafficKernel = (*Conn)(nil)
)

// Supports implements clusterip.TableKernel.
func (c *Conn) Supports(ctx context.Context, _ clusterip.Layout) (clusterip.Answer, error) {
	if _, err := c.programs.Open(ctx, xtables.System); err != nil {
		return clusterip.No, err
	}
	return extension.IsInKernel()
}

// chains lists the chains of this agent by the flavour of iptables that has them. Where there are none, no program is run.
func (c *Conn) chains(ctx context.Context) (map[string][]string, error) {
	ours := func(all []string) []string {
		return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	}
	nft, err := c.NFTables.ChainNames(ctx, table)
	if err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
		return nil, err
	}
	names := map[string][]string{xtables.NFT: ours(nft)}
	if exists, err := hasTable(legacyTables, table); err != nil || !exists {
		return names, err
	}
	program, err := c.programs.Open(ctx, xtables.Legacy, xtables.System)
	if err != nil {
		return nil, err
	}
	legacy, err := program.ListChains(table)
	if err != nil {
		return nil, fmt.Errorf("list the chains of table %s: %w", table, err)
	}
	names[xtables.Legacy] = ours(legacy)
	return names, nil
}

// hasTable reports whether one of the kernel's lists has a table. The list does not exist while the module that keeps such tables is not
// loaded.
func hasTable(list, name string) (bool, error) {
	tables, err := os.ReadFile(list) //nolint:gosec // one of two in /proc
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(tables)), name), err
}

// read reads the rules of an address. The program is nil if there are none.
func (c *Conn) read(ctx context.Context, address netip.Addr) (ruleset, error) {
	r := ruleset{address: address, chains: map[string][]xtables.Rule{}}
	names, err := c.chains(ctx)
	if err != nil {
		return r, err
	}
	for _, flavour := range []string{xtables.NFT, xtables.Legacy} {
		found := slices.DeleteFunc(names[flavour], func(name string) bool { return !slices.Contains(r.names(), name) })
		if len(found) == 0 {
			continue
		}
		if r.program, err = c.programs.Open(ctx, flavour, xtables.System); err != nil {
			return r, err
		}
		for _, name := range found {
			if r.chains[name], err = r.program.Rules(table, name); err != nil {
				return r, err
			}
		}
		r.prerouting, err = r.program.Rules(table, chain)
		return r, err
	}
	return r, nil
}

// ObserveTables implements clusterip.TableKernel.
func (c *Conn) ObserveTables(ctx context.Context, address netip.Addr) (clusterip.Tables, error) {
	r, err := c.read(ctx, address)
	if err != nil {
		return clusterip.Tables{}, err
	}
	if r.program == nil {
		left, err := c.arp().exists(ctx, address)
		if left {
			return clusterip.Tables{Present: true, Faults: []string{"iptables' chain " + r.names()[0] + " is missing"}}, err
		}
		return clusterip.Tables{}, err
	}
	tables := r.judge()
	if tables.Installed == nil {
		return tables, nil
	}
	damage, err := c.arp().observe(ctx, *tables.Installed)
	tables.Faults = append(tables.Faults, damage...)
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
		for _, name := range chains {
			program, err := c.programs.Open(ctx, flavour, xtables.System)
			if err != nil {
				return nil, err
			}
			rules, err := program.Rules(table, name)
			if err != nil {
				return nil, err
			}
			for _, layout := range xtables.Layouts(rules) {
				isListed := func(l clusterip.Layout) bool { return l.Address() == layout.Address() }
				if !slices.ContainsFunc(layouts, isListed) {
					layouts = append(layouts, layout)
				}
			}
		}
	}
	return layouts, nil
}

// Traffic implements clusterip.TrafficKernel.
func (c *Conn) Traffic(ctx context.Context, layout clusterip.Layout) (*clusterip.Traffic, error) {
	r, err := c.read(ctx, layout.Address())
	if err != nil {
		return nil, err
	}
	traffic := &clusterip.Traffic{Buckets: map[clusterip.Bucket]clusterip.Count{}}
	name, ok := r.live()
	if !ok {
		return traffic, nil
	}
	rules, err := r.program.CountedRules(table, name)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if bucket, ok := bucketOf(rule); ok {
			traffic.Buckets[bucket] = rule.Count()
		} else if rule.IsStamped() {
			traffic.Foreign = rule.Count()
		}
	}
	return traffic, nil
}

// ApplyTables implements clusterip.TableKernel. Each command to iptables is one transaction.
func (c *Conn) ApplyTables(ctx context.Context, step clusterip.Step) error {
	switch step := step.(type) {
	case clusterip.InstallTables:
		return c.install(ctx, step)
	case clusterip.ChangeBuckets:
		return c.changeBuckets(ctx, step)
	case clusterip.RemoveTables:
		r, err := c.read(ctx, step.Address)
		if err != nil {
			return err
		}
		// The chain goes last, because it names the owner of the rest.
		return errors.Join(r.removeJumps(), c.arp().remove(ctx, step.Address), r.removeChains())
	default:
		return fmt.Errorf("%s: not a step for xt_cluster", step)
	}
}

func (c *Conn) changeBuckets(ctx context.Context, step clusterip.ChangeBuckets) error {
	r, name, tables, err := c.readLive(ctx, step.Address)
	if err != nil {
		return err
	}
	owned := tables.Owned
	for _, bucket := range step.Own {
		place, _ := slices.BinarySearch(owned, bucket)
		if err := r.program.Insert(table, name, firstBucket+place, bucketRule(*tables.Installed, bucket)...); err != nil {
			return err
		}
		owned = slices.Insert(owned, place, bucket)
	}
	var errs []error
	for _, bucket := range step.Release {
		errs = append(errs, r.program.Delete(table, name, bucketRule(*tables.Installed, bucket)...))
	}
	return errors.Join(errs...)
}

// readLive reads the chain that packets for an address go through.
func (c *Conn) readLive(ctx context.Context, address netip.Addr) (r ruleset, name string, tables clusterip.Tables, err error) {
	if r, err = c.read(ctx, address); err != nil {
		return r, "", tables, err
	}
	if tables = r.judge(); tables.Installed == nil {
		return r, "", tables, fmt.Errorf("iptables has no chain for %s whose stamp can be read", address)
	}
	name, _ = r.live()
	return r, name, tables, nil
}

// install fills a chain beside the one that may exist, sends packets to it before all other rules, and then removes the old one: in
// between both filter.
func (c *Conn) install(ctx context.Context, step clusterip.InstallTables) error {
	r, err := c.read(ctx, step.Layout.Address())
	if err != nil {
		return err
	}
	if r.program == nil {
		if r.program, err = c.programs.Open(ctx, xtables.System, xtables.NFT, xtables.Legacy); err != nil {
			return err
		}
	}
	name := r.names()[0]
	if live, ok := r.live(); ok && live == name {
		name = r.names()[1]
	}
	if rules, ok := r.chains[name]; ok { // left by an installation that was interrupted
		interrupted := r
		interrupted.chains = map[string][]xtables.Rule{name: rules}
		delete(r.chains, name)
		if err := interrupted.remove(); err != nil {
			return err
		}
	}
	if err := c.installChain(ctx, r.program, name, step); err != nil {
		return extension.Explain(err)
	}
	if err := r.program.Insert(table, chain, 1, jump(r.address, name)...); err != nil {
		return err
	}
	return r.remove()
}

// installChain creates a chain and fills it: the stamp comes first, because it names the owner of the rest.
func (c *Conn) installChain(ctx context.Context, program *xtables.Program, name string, step clusterip.InstallTables) error {
	if err := program.NewChain(table, name); err != nil {
		return err
	}
	rules := chainRules(step.Layout, step.Keep)
	last := len(rules) - 1
	if err := program.Append(table, name, rules[last]...); err != nil {
		return err
	}
	if err := c.arp().install(ctx, step.Layout); err != nil {
		return err
	}
	for i, rule := range rules[:last] {
		if err := program.Insert(table, name, i+1, rule...); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the chains, and before them the rules that send packets there.
func (r ruleset) remove() error { return errors.Join(r.removeJumps(), r.removeChains()) }

func (r ruleset) removeJumps() error {
	var errs []error
	for _, rule := range r.prerouting {
		_, jumps := r.chains[rule.Option("-j")]
		_, goes := r.chains[rule.Option("-g")]
		if jumps || goes {
			errs = append(errs, r.program.Delete(table, chain, rule.Spec()...))
		}
	}
	return errors.Join(errs...)
}

func (r ruleset) removeChains() error {
	var errs []error
	for name := range r.chains {
		errs = append(errs, r.program.ClearAndDeleteChain(table, name))
	}
	return errors.Join(errs...)
}
