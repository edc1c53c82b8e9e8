//go:build system

package packages

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/probe"
)

const (
	resource = "web-ip"
	buckets  = 8
	streams  = 200 // connections that stay open
	// stepTimeout bounds what the cluster may need for one step.
	stepTimeout = 90 * time.Second
	// monitored is when every bucket was monitored a few times.
	monitored = 10 * time.Second
)

var shared = netip.MustParseAddr("192.168.10.3")

// A site is a cluster of three hosts on Debian 13, and the package in a folder that they see.
type site struct {
	*lab.Lab
	t      *testing.T
	folder string
	deb    string

	// For upgrades.
	later string
	probe *probe.Probe // clients with open connections
}

// newSite makes a site whose hosts do not have the package.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, folder: t.TempDir()} // hosts see the folder for temporary files
	s.deb = s.share(built(t, *dist, "*_"+architecture(t)+".deb"))
	var err error
	s.Lab, err = lab.New(t.Context(), lab.Options{Roots: []string{madeRoot(t, "trixie")}, Log: t.Output()})
	s.check(err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("remove the lab: %v", err)
		}
	})
	return s
}

// newSiteInUse makes one whose hosts have the package from dpkg and serve clients, and a later package.
func newSiteInUse(t *testing.T) *site {
	t.Helper()
	later, _ := newer(t)
	s := newSite(t)
	s.later = s.share(later)
	s.install(s.deb, s.Hosts...)
	s.on(s.Hosts[0], "pcs", "resource", "create", resource, "ocf:custom:clusterip", "ip="+shared.String(), "drain=600",
		"op", "monitor", "interval=2s",
		"clone", "clone-max=8", "clone-node-max=8", "globally-unique=true", "resource-stickiness=0")
	s.even("node1", "node2", "node3")
	var err error
	s.probe, err = s.ProbeWith(t.Context(), probe.Options{
		Target: shared, Sources: s.Network.Sources(streams), Protos: []probe.Proto{probe.Stream}, Interval: time.Second,
	})
	s.check(err)
	s.answered()
	return s
}

// share copies a deb to the folder, and returns its name there.
func (s *site) share(deb string) string {
	s.t.Helper()
	mustRun(s.t, "cp", "--target-directory", s.folder, deb)
	return filepath.Join(s.folder, filepath.Base(deb))
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) on(h *lab.Host, argv ...string) string {
	s.t.Helper()
	out, err := h.Run(s.t.Context(), argv...)
	s.check(err)
	return out
}

// install has dpkg install a deb on hosts.
func (s *site) install(deb string, hosts ...*lab.Host) {
	s.t.Helper()
	for _, h := range hosts {
		s.on(h, "dpkg", "--install", deb)
	}
	s.installed(deb, hosts...)
}

// installed expects that hosts have the version of a deb.
func (s *site) installed(deb string, hosts ...*lab.Host) {
	s.t.Helper()
	version := strings.TrimSpace(mustRun(s.t, "dpkg-deb", "--field", deb, "Version"))
	for _, h := range hosts {
		if installed := s.on(h, "dpkg-query", "--show", "--showformat", "${Version}", "ocf-clusterip"); installed != version {
			s.t.Errorf("%s has %s after the installation of %s", h.Name, installed, version)
		}
	}
}

// even waits until the buckets are spread evenly over exactly those nodes, and nothing is left to be done.
func (s *site) even(nodes ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	_, err := s.WaitFor(ctx, func(status *lab.Status) error { return status.Even(resource, buckets, nodes...) })
	s.check(err)
	s.check(s.WaitIdle(ctx))
}

// answered waits until each connection has an answer to what it asks from now on.
func (s *site) answered() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	s.check(s.probe.WaitAnswered(ctx, time.Now()))
}

// An upgrade under traffic moves no bucket and fails no monitor. Neither it nor a downgrade in standby breaks a connection.
func TestUpgradeUnderTraffic(t *testing.T) {
	s := newSiteInUse(t)
	before, err := s.Status(t.Context())
	s.check(err)

	since := s.Now()
	s.probe.Mark("upgraded")
	s.install(s.later, s.Hosts...)
	time.Sleep(monitored)
	s.answered()
	after, err := s.Status(t.Context())
	s.check(err)
	for bucket, node := range before.Placement(resource) {
		if now := after.Placement(resource)[bucket]; now != node {
			t.Errorf("bucket %d has moved from %s to %s", bucket, node, now)
		}
	}
	results, err := s.Results(since)
	s.check(err)
	for _, r := range results {
		if strings.HasPrefix(r.Resource, resource) { // Pacemaker logs a recurring monitor only when its result changes
			t.Errorf("after the upgrade: %v", r)
		}
	}

	for _, h := range s.Hosts {
		others := slices.DeleteFunc([]string{"node1", "node2", "node3"}, func(name string) bool { return name == h.Name })
		s.probe.Mark(h.Name + " downgraded in standby")
		s.on(s.Hosts[0], "pcs", "node", "standby", h.Name)
		s.even(others...)
		s.install(s.deb, h)
		s.on(s.Hosts[0], "pcs", "node", "unstandby", h.Name)
		s.even("node1", "node2", "node3")
		s.answered()
	}
	results, err = s.Results(since)
	s.check(err)
	if len(results) == 0 {
		t.Error("no action is logged")
	}
	for _, r := range results {
		if !r.OK() && r.Outcome != "cancelled" && strings.HasPrefix(r.Resource, resource) {
			t.Errorf("failed: %v", r)
		}
	}

	log, err := s.probe.Stop()
	s.check(err)
	t.Logf("\n%s", log.Summary())
	for _, kind := range []probe.Kind{probe.Broken, probe.Duplicate, probe.WrongMAC} {
		for _, e := range log.Of(kind) {
			t.Error(e)
		}
	}
	if log.Summary().Total.Asked == 0 {
		t.Error("no client asked anything")
	}
}
