package main

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/firewall"
	"ocf-clusterip/internal/kernel/sysctl"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/doctor"
	"ocf-clusterip/internal/pacemaker"
)

const doctorDescription = `Looks at this node, its cluster and its network, and says of each thing whether it is as it should be; if not: what was seen, why it
matters, and what to type. It changes nothing, but to learn which backend the kernel has may load its modules, as a start does. Run it
on each node: each compares itself with the cluster's one configuration.

It examines the resources that the cluster configures, and those that are laid on this node. Before there is any, or on a node without
Pacemaker, say what is to be, as the resource's parameters:

   ocf-clusterip doctor
   ocf-clusterip doctor --ip 192.168.10.3 --nic eth0 --buckets 8

The exit status is 0 when all is well, 1 when there are warnings, 2 when there are failures. What could not be told is a warning.`

// corosyncConf is where Corosync reads what it is to do, unless the environment says otherwise, as it does to Corosync itself.
const (
	corosyncConf     = "/etc/corosync/corosync.conf"
	corosyncVariable = "COROSYNC_MAIN_CONFIG_FILE"
)

// longestWait is the most that somebody may want to listen for a querier, in seconds.
const longestWait = 3600

func (c *call) doctorCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "write JSON"},
		&numberFlag{&cli.UintFlag{Name: "wait", Usage: "with mac_mode=igmp: listen for a querier for so many `SECONDS`; they ask every 125 s"}},
		&numberFlag{&cli.UintFlag{Name: "buckets", Usage: "with --ip: how many buckets there are to be, `N` (clone-max)", Value: 1}},
	}
	for _, p := range metadata.Parameters() {
		flags = append(flags, &cli.StringFlag{Name: flagOf(p.Name), Usage: "the resource's parameter " + p.Name + ": " + p.Short})
	}
	return c.forPeople(&cli.Command{
		Name: "doctor", Usage: "what is wrong here, why it matters, and what to type", ArgsUsage: " ", Description: doctorDescription,
		Flags: flags, Action: c.doctor,
	})
}

func (c *call) doctor(ctx *cli.Context) error {
	asked, err := c.askedOf(ctx)
	if err != nil {
		return err
	}
	wait := time.Duration(ctx.Uint("wait")) * time.Second
	var facts doctor.Facts
	err = c.withKernel(func(k kernel) error {
		g := gatherer{
			call: c, kernel: k, cluster: c.patientCluster(),
			listener: listener{hears: k.links.HearsQuerier, wait: wait, heard: map[lan]*doctor.Fact[bool]{}},
		}
		facts, err = g.gather(ctx.Context, asked)
		return err
	})
	if err != nil {
		return err
	}
	checks := doctor.Examine(facts)
	if ctx.Bool("json") {
		err = operator.WriteJSON(c.stdout, doctor.NewReport(facts, checks))
	} else {
		err = doctor.Write(c.stdout, facts, checks, c.screen().style())
	}
	if worst := doctor.Worst(checks); err == nil && worst != doctor.OK {
		return verdict(worst)
	}
	return err
}

// askedOf is the resource that the flags describe; nil if they do not.
func (c *call) askedOf(ctx *cli.Context) (*doctor.Resource, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if ctx.Args().Present() {
		fault("%s is not a flag; the address is said with --ip", ocf.Quote(ctx.Args().First()))
	}
	if ctx.Uint("wait") > longestWait {
		fault("--wait %d is not a number of seconds from 0 to %d", ctx.Uint("wait"), longestWait)
	}
	var names []string
	for _, p := range metadata.Parameters() {
		names = append(names, p.Name)
	}
	parameters := given(ctx, names)
	buckets := ctx.Uint("buckets")
	if buckets == 0 || buckets > ocf.MaxBuckets {
		fault("--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	if len(parameters) == 0 && !ctx.IsSet("buckets") {
		return nil, errors.Join(faults...)
	}
	if parameters["ip"] == "" {
		fault("the resource's parameters and --buckets need --ip; without any of them, what is configured or laid here is examined")
		return nil, errors.Join(faults...)
	}
	r := examined(parameters, "", uint32(min(buckets, ocf.MaxBuckets)))
	r.Origin = doctor.FromFlags
	if r.SpecErr != nil {
		fault("%w", r.SpecErr)
	}
	return &r, errors.Join(faults...)
}

func examined(parameters map[string]string, name string, buckets uint32) doctor.Resource {
	var r doctor.Resource
	r.Spec, r.Unknown, r.SpecErr = specOf(parameters, name, buckets)
	return r
}

// A gatherer asks the node, its cluster and its network.
type gatherer struct {
	call     *call
	kernel   kernel
	cluster  pacemaker.Cluster
	listener listener
}

// gather asks everything. Questions about the cluster, and those about each resource, have a time of their own; what is listened for has
// another one.
func (g gatherer) gather(ctx context.Context, asked *doctor.Resource) (doctor.Facts, error) {
	facts := g.askCluster(ctx, asked)
	if len(facts.Resources) == 0 && !facts.Pacemaker {
		if facts.InstalledErr != nil {
			return facts, facts.InstalledErr
		}
		return facts, ocf.Errorf(ocf.ErrArgs, "no address is shared on this node, and there is no cluster to say that one is to be; say which with --ip")
	}
	for i := range facts.Resources {
		g.examine(ctx, &facts.Resources[i])
	}
	return facts, nil
}

// askCluster asks for the cluster, and for the resources that there are.
func (g gatherer) askCluster(ctx context.Context, asked *doctor.Resource) doctor.Facts {
	ctx, cancel := context.WithTimeout(ctx, ocf.DefaultTimeout)
	defer cancel()
	var facts doctor.Facts
	facts.Configuration = doctor.NewFact(g.cluster.Configuration(ctx))
	facts.Pacemaker = !errors.Is(facts.Configuration.Err, fs.ErrNotExist) // cibadmin is not there
	if facts.Pacemaker {
		facts.Node, _ = g.cluster.NodeName(ctx) // only to be shown
		facts.Corosync = doctor.NewFact(g.call.corosyncConf())
	}
	if asked != nil {
		facts.Resources = []doctor.Resource{*asked}
		return facts
	}
	var laid []clusterip.Layout
	laid, facts.InstalledErr = g.kernel.Layouts(ctx)
	facts.Resources = known(facts.Configuration.Value, laid)
	return facts
}

func (c *call) corosyncConf() (string, error) {
	path := corosyncConf
	for _, variable := range c.environ {
		if value, is := strings.CutPrefix(variable, corosyncVariable+"="); is && value != "" {
			path = value
		}
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// known are the resources that the cluster configures, and those that are laid here without that.
func known(configuration *etree.Element, laid []clusterip.Layout) []doctor.Resource {
	var all []doctor.Resource
	if configuration != nil {
		for _, configured := range pacemaker.Resources(configuration) {
			r := examined(configured.Parameters, configured.Name, configured.Buckets)
			r.Origin, r.Configured = doctor.FromCIB, &configured
			all = append(all, r)
		}
	}
	for _, layout := range laid {
		isKnown := func(r doctor.Resource) bool { return r.Spec.Address() == layout.Address() }
		if !slices.ContainsFunc(all, isKnown) {
			all = append(all, doctor.Resource{Origin: doctor.FromKernel, Spec: layout.Spec()})
		}
	}
	return all
}

// examine asks what there is to ask about one resource. What depends on an interface is left out when it is not known which.
func (g gatherer) examine(ctx context.Context, r *doctor.Resource) {
	if len(r.Spec.Addresses) == 0 {
		return
	}
	limit, cancel := context.WithTimeout(ctx, ocf.DefaultTimeout)
	defer cancel()
	r.State = doctor.NewFact(agent.Observe(limit, g.kernel, r.Spec))
	if r.State.Err != nil {
		return
	}
	r.Sysctls = map[string]doctor.Fact[string]{}
	for _, name := range doctor.Sysctls(r.State.Value.NICs) {
		r.Sysctls[name] = doctor.NewFact(sysctl.Read(name))
	}
	r.Around = doctor.NewFact(g.kernel.links.Surroundings(limit))
	layout, _ := r.Layout()
	if layout.NICIndex == 0 {
		return
	}
	r.Capabilities = g.kernel.Capabilities(limit, layout)
	layout, _ = r.Layout() // with a backend
	r.Obstacles = doctor.NewFact(firewall.Look(limit, g.kernel.tables, layout))
	if _, why := r.Spec.Resolve(r.State.Value); why != nil || r.Around.Err != nil {
		return // an address in the way, for instance, or no IPv6
	}
	nic, ok := r.State.Value.NICNamed(layout.NIC)
	if !ok || !nic.Up || !nic.Running {
		return // the interface leads nowhere
	}
	g.askNetwork(limit, r, layout)
	r.Around = doctor.NewFact(g.kernel.links.Surroundings(limit)) // who has answered is a neighbour now
	if layout.MACMode == clusterip.IGMP {
		g.listener.listen(ctx, r, layout, nic)
	}
}

// askNetwork asks the hosts and routers of the LAN.
func (g gatherer) askNetwork(ctx context.Context, r *doctor.Resource, layout clusterip.Layout) {
	links := g.kernel.links
	conflicts := doctor.NewFact(links.Strangers(ctx, layout))
	r.Conflicts = &conflicts
	address, has := doctor.FirstIPv4(layout)
	if !has || !r.State.Value.Tables.Present {
		return
	}
	for _, gateway := range r.Around.Value.Gateways {
		if gateway.NICIndex == layout.NICIndex && gateway.Address.Is4() {
			answer := doctor.NewFact(links.AskRouter(ctx, layout.NICIndex, address, gateway.Address))
			r.Router, r.RouterAt = &answer, gateway.Address
			return
		}
	}
}

// A listener listens for queriers, once on each LAN for each family, however many resources have their groups there.
type listener struct {
	hears func(ctx context.Context, nic clusterip.NIC, ipv6 bool, wait time.Duration) (bool, error)
	wait  time.Duration
	heard map[lan]*doctor.Fact[bool]
}

type lan struct {
	nicIndex int
	ipv6     bool
}

func (l listener) listen(ctx context.Context, r *doctor.Resource, layout clusterip.Layout, nic clusterip.NIC) {
	on := func(ipv6 bool) *doctor.Fact[bool] {
		where := lan{nic.Index, ipv6}
		if l.heard[where] == nil {
			told := doctor.NewFact(l.hears(ctx, nic, ipv6, l.wait))
			l.heard[where] = &told
		}
		return l.heard[where]
	}
	r.Waited = l.wait
	if layout.Has(netip.Addr.Is4) {
		r.Querier.IPv4 = on(false)
	}
	if layout.Has(netip.Addr.Is6) {
		r.Querier.IPv6 = on(true)
	}
}
