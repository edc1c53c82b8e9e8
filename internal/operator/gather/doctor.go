package gather

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel"
	"ocf-clusterip/internal/kernel/firewall"
	"ocf-clusterip/internal/kernel/sysctl"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/doctor"
	"ocf-clusterip/internal/pacemaker"
)

// Doctor gathers the facts that doctor checks.
type Doctor struct {
	Kernel       kernel.Kernel
	Cluster      pacemaker.Cluster
	Files        fs.FS         // the root of the node's files
	CorosyncConf string        // the path of Corosync's configuration
	Wait         time.Duration // how long to listen for a querier
}

// Facts reads everything. The questions about the cluster, and those about each resource, have a time limit each; listening for a querier
// has its own. A resource that flags describe is the only one that is read.
func (d Doctor) Facts(ctx context.Context, described *doctor.Resource) (doctor.Facts, error) {
	facts := d.cluster(ctx, described)
	facts.Flushes = doctor.NewFact(d.files().flushes())
	facts.Neighbours.IPv4 = doctor.NewFact(d.files().neighbourTable("arp_cache"))
	facts.Neighbours.IPv6 = doctor.NewFact(d.files().neighbourTable("ndisc_cache"))
	if len(facts.Resources) == 0 && !facts.Pacemaker {
		if facts.InstalledErr != nil {
			return facts, facts.InstalledErr
		}
		return facts, ocf.Errorf(ocf.ErrArgs,
			"no address is shared on this node, and there is no cluster that configures one; name one with --ip")
	}
	queriers := listener{hears: d.Kernel.Links.HearsQuerier, wait: d.Wait, heard: map[lan]*doctor.Fact[bool]{}}
	for i := range facts.Resources {
		d.resource(ctx, &facts.Resources[i], queriers)
	}
	return facts, nil
}

func (d Doctor) files() nodeFiles { return nodeFiles{d.Files} }

// cluster reads the cluster, and which resources there are.
func (d Doctor) cluster(ctx context.Context, described *doctor.Resource) doctor.Facts {
	ctx, cancel := context.WithTimeout(ctx, ocf.DefaultTimeout)
	defer cancel()
	var facts doctor.Facts
	facts.Configuration = doctor.NewFact(d.Cluster.Configuration(ctx))
	facts.Pacemaker = !errors.Is(facts.Configuration.Err, fs.ErrNotExist) // cibadmin is installed
	if facts.Pacemaker {
		facts.Node, _ = d.Cluster.NodeName(ctx) // only to be shown
		text, err := os.ReadFile(d.CorosyncConf)
		facts.Corosync = doctor.NewFact(string(text), err)
	}
	if described != nil {
		facts.Resources = []doctor.Resource{*described}
		return facts
	}
	var installed []clusterip.Layout
	installed, facts.InstalledErr = d.Kernel.Layouts(ctx)
	facts.Resources = resources(facts.Configuration.Value, installed)
	return facts
}

// resources are those that the cluster configures, and those that are installed here although it does not.
func resources(configuration *etree.Element, installed []clusterip.Layout) []doctor.Resource {
	var all []doctor.Resource
	if configuration != nil {
		for _, configured := range pacemaker.Resources(configuration) {
			r := Described(configured.Parameters, configured.Name, configured.Buckets)
			r.Origin, r.Configured = doctor.FromCIB, &configured
			all = append(all, r)
		}
	}
	for _, layout := range installed {
		isKnown := func(r doctor.Resource) bool { return r.Spec.Address() == layout.Address() }
		if !slices.ContainsFunc(all, isKnown) {
			all = append(all, doctor.Resource{Origin: doctor.FromKernel, Spec: layout.Spec()})
		}
	}
	return all
}

// Described returns the resource that these parameters describe.
func Described(parameters map[string]string, name string, buckets uint32) doctor.Resource {
	var r doctor.Resource
	r.Spec, r.Unknown, r.SpecErr = Spec(parameters, name, buckets)
	return r
}

// resource reads what there is to know about one resource. What depends on the interface is left out while the interface is unknown.
func (d Doctor) resource(ctx context.Context, r *doctor.Resource, queriers listener) {
	if len(r.Spec.Addresses) == 0 {
		return
	}
	limit, cancel := context.WithTimeout(ctx, ocf.DefaultTimeout)
	defer cancel()
	r.State = doctor.NewFact(agent.Observe(limit, d.Kernel, r.Spec))
	if r.State.Err != nil {
		return
	}
	r.Sysctls = map[string]doctor.Fact[string]{}
	for _, name := range doctor.Sysctls(r.State.Value.NICs) {
		r.Sysctls[name] = doctor.NewFact(sysctl.Read(name))
	}
	r.Around = doctor.NewFact(d.Kernel.Links.Surroundings(limit))
	layout, _ := r.Layout()
	if layout.NICIndex == 0 {
		return
	}
	r.Networkd = doctor.NewFact(d.files().networkd(layout.NICIndex))
	r.NM = doctor.NewFact(d.files().networkManager(layout.NICIndex))
	r.Capabilities = d.Kernel.Capabilities(limit, layout)
	layout, _ = r.Layout() // with a backend
	if nic, ok := r.State.Value.NICAt(layout.NICIndex); ok {
		r.NoXDP = doctor.NewFact(d.Kernel.WhyNoXDP(limit, nic))
	}
	r.Obstacles = doctor.NewFact(firewall.Obstacles(limit, d.Kernel.Tables, layout))
	if _, refused := r.Spec.Resolve(r.State.Value); refused != nil || r.Around.Err != nil {
		return // another address conflicts, for instance, or the interface has no IPv6
	}
	nic, ok := r.State.Value.NICNamed(layout.NIC)
	if !ok || !nic.Up || !nic.Running {
		return // no host would answer
	}
	d.network(limit, r, layout)
	r.Around = doctor.NewFact(d.Kernel.Links.Surroundings(limit)) // hosts that have answered are neighbours now
	if layout.MACMode == clusterip.IGMP {
		queriers.listen(ctx, r, layout, nic)
	}
}

// network asks the hosts and routers of the LAN.
func (d Doctor) network(ctx context.Context, r *doctor.Resource, layout clusterip.Layout) {
	conflicts := doctor.NewFact(d.Kernel.Links.Conflicts(ctx, layout))
	r.Conflicts = &conflicts
	address, has := doctor.FirstIPv4(layout)
	if !has || !r.State.Value.Tables.Present {
		return
	}
	for _, gateway := range r.Around.Value.Gateways {
		if gateway.NICIndex == layout.NICIndex && gateway.Address.Is4() {
			answer := doctor.NewFact(d.Kernel.Links.AskRouter(ctx, layout.NICIndex, address, gateway.Address))
			r.Router, r.RouterAt = &answer, gateway.Address
			return
		}
	}
}
