package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/netns"
)

// The numbers of the article.
var (
	lan     = netip.MustParsePrefix("192.168.10.0/24")
	address = netip.MustParseAddr("192.168.10.3")
	mac     = "01:02:03:04:05:06"

	// clients are the addresses that ask: 64 of them.
	clients = netip.MustParsePrefix("192.168.10.128/26")
)

const (
	buckets  = 8
	resource = "web-ip"
)

// nodes are who may own a bucket, by their index in netns.Network.Nodes. The letters stand for them in pictures.
var nodes = [...]struct{ name, letter, colour string }{
	{"node1", "A", "97;44"}, // white on blue
	{"node2", "B", "30;43"}, // black on yellow
	{"node3", "C", "30;42"}, // black on green
}

const (
	node1, node2, node3 = 0, 1, 2

	nobody = -1
)

// A placement says which node owns each bucket, or nobody.
type placement [buckets]int

func placedNowhere() placement {
	var p placement
	for b := range p {
		p[b] = nobody
	}
	return p
}

// of lists a node's buckets.
func (p placement) of(node int) []int {
	var list []int
	for b, owner := range p {
		if owner == node {
			list = append(list, b)
		}
	}
	return list
}

// bucketOf is the oracle: the bucket that must answer a client.
func bucketOf(client netip.Addr) int {
	flow := clusterip.Flow{Source: client}
	return int(clusterip.Owner(clusterip.SourceIP, flow, clusterip.DefaultSeed(address), buckets))
}

// parameters are what an admin would export before calling the agent by hand. Pacemaker sets the same.
func parameters() [][]string {
	return [][]string{
		{"OCF_RESKEY_ip=" + address.String(), "OCF_RESKEY_mac=" + mac},
		{"OCF_RESKEY_CRM_meta_clone_max=" + strconv.Itoa(buckets), "OCF_RESKEY_CRM_meta_globally_unique=true"},
	}
}

// environment is what the resource manager sets for an instance. Nodes on one machine need locks of their own.
func (d *demo) environment(node, bucket int) []string {
	return slices.Concat(slices.Concat(parameters()...), []string{
		path, "LC_ALL=C",
		"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_PROVIDER=custom", "OCF_RESOURCE_TYPE=clusterip",
		fmt.Sprintf("OCF_RESOURCE_INSTANCE=%s:%d", resource, bucket),
		fmt.Sprintf("OCF_RESKEY_CRM_meta_clone=%d", bucket),
		"OCF_RESKEY_CRM_meta_timeout=20000", "OCF_RESKEY_CRM_meta_on_node=" + nodes[node].name,
		"HA_RSCTMP=" + d.lockDir(node),
	})
}

const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

func (d *demo) lockDir(node int) string { return filepath.Join(d.locks, nodes[node].name) }

// call calls the agent for one instance as the resource manager would.
func (d *demo) call(ctx context.Context, node, bucket int, action string) netns.Result {
	return d.network.Nodes[node].Run(ctx, d.environment(node, bucket), d.agent, action)
}

// A share is some buckets of a node.
type share struct {
	node    int
	buckets []int
}

// act shows the commands for each share, and runs all of them at once, as Pacemaker does.
func (d *demo) act(ctx context.Context, action string, shares ...share) error {
	var calls sync.WaitGroup
	var faults []error
	var mu sync.Mutex
	for _, s := range shares {
		d.command(nodes[s.node].name, commandFor(action, s.buckets))
		for _, bucket := range s.buckets {
			calls.Go(func() {
				if err := failure(d.call(ctx, s.node, bucket, action), ocf.Success); err != nil {
					mu.Lock()
					defer mu.Unlock()
					faults = append(faults, fmt.Errorf("%s of bucket %d on %s: %w", action, bucket, nodes[s.node].name, err))
				}
			})
		}
	}
	calls.Wait()
	return errors.Join(faults...)
}

func (d *demo) start(ctx context.Context, shares ...share) error {
	for _, s := range shares {
		for _, bucket := range s.buckets {
			d.placement[bucket] = s.node
		}
	}
	return d.act(ctx, "start", shares...)
}

// stop gives buckets up. If the node was cut off, others may have them already.
func (d *demo) stop(ctx context.Context, shares ...share) error {
	for _, s := range shares {
		for _, bucket := range s.buckets {
			if d.placement[bucket] == s.node {
				d.placement[bucket] = nobody
			}
		}
	}
	return d.act(ctx, "stop", shares...)
}

// commandFor is what an admin would type, with the parameters exported.
func commandFor(action string, which []int) string {
	if len(which) == 1 {
		return instance(strconv.Itoa(which[0]), action)
	}
	return fmt.Sprintf("for b in %s; do %s; done", join(which), instance("$b", action))
}

// instance is the call of one instance; its name says which bucket it is.
func instance(bucket, action string) string {
	return fmt.Sprintf("OCF_RESOURCE_INSTANCE=%s:%s ocf-clusterip %s", resource, bucket, action)
}

// show shows a command and what it prints. It succeeds if it prints something.
func (d *demo) show(ctx context.Context, host *netns.Host, line, remark string) error {
	d.command(host.Name, line+"  # "+remark)
	r := host.Run(ctx, []string{path, "LC_ALL=C"}, "/bin/sh", "-c", line)
	d.output(r.Stdout)
	if r.Stdout == "" && r.Stderr == "" && r.Err == nil {
		return fmt.Errorf("%s: printed nothing", line)
	}
	return failure(r, ocf.Success)
}

// failure tells what is wrong with a call that should have ended with a status; nil if nothing is.
func failure(r netns.Result, want ocf.ExitCode) error {
	if r.Err != nil {
		return r.Err
	}
	if got := ocf.ExitCode(r.ExitCode); got != want {
		return fmt.Errorf("exit status %d instead of %d: %s", got, want, strings.TrimSpace(r.Stderr))
	}
	return nil
}

// remains lists what the agent left on a node since its state was `before`.
func (d *demo) remains(node int, before string) error {
	after, err := d.network.Nodes[node].Dump()
	if err != nil {
		return err
	}
	var faults []error
	report := func(what string, left, right string) {
		there := strings.Split(right, "\n")
		for line := range strings.SplitSeq(left, "\n") {
			if !slices.Contains(there, line) {
				faults = append(faults, fmt.Errorf("%s: %s: %s", nodes[node].name, what, line))
			}
		}
	}
	report("new", after, before)
	report("gone", before, after)
	err = filepath.WalkDir(d.lockDir(node), func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			faults = append(faults, fmt.Errorf("%s: file %s", nodes[node].name, filepath.Base(name)))
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func join(numbers []int) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, " ")
}
