package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

const (
	ipaddr2 = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2"

	ourAddress   = "192.168.10.3"
	theirAddress = "192.168.10.4"

	buckets = 8
)

// executor returns what Pacemaker's executor sets for every agent. Without a log facility IPaddr2 writes its log to stderr: with one it
// would start logger(1) for each line.
func executor(scratch, action string) harness.Vars {
	return harness.Pacemaker("node1", filepath.Join(scratch, "run"), action)
}

// parameters returns those that both agents have.
func parameters(ip string) harness.Vars {
	return harness.Parameters{"ip": ip, "nic": lan.NIC, "cidr_netmask": "24"}.Vars()
}

// ours returns the environment of an action of a bucket's instance.
func ours(scratch, action string, bucket, buckets int) harness.Vars {
	return executor(scratch, action).With(harness.Instance(bucket, buckets), parameters(ourAddress))
}

// theirs returns the environment of an action for a plain address.
func theirs(scratch, action string, more harness.Parameters) harness.Vars {
	return executor(scratch, action).With(parameters(theirAddress), more.Vars(), harness.Vars{
		"OCF_RESOURCE_PROVIDER": "heartbeat", "OCF_RESOURCE_TYPE": "IPaddr2", "OCF_RESOURCE_INSTANCE": "vip",
	})
}

// An arpSetting is a way in which IPaddr2 can announce its address; most of a start's cost depends on it.
type arpSetting struct {
	name        string
	start, stop *series
}

// A duel is all actions of both agents.
type duel struct {
	startFirst, startFurther, monitor, validate, metaData, stopFurther, stopLast *series

	theirMonitor, theirValidate, theirMetaData *series
	arp                                        []*arpSetting

	floors []*series
}

func newDuel(agent, scratch string, floors []*series) *duel {
	our := func(action string, bucket int) *series {
		return &series{name: "ocf-clusterip " + action, env: ours(scratch, action, bucket, buckets).List(), argv: []string{agent, action}}
	}
	their := func(action string, parameters harness.Parameters) *series {
		return &series{name: "IPaddr2 " + action, env: theirs(scratch, action, parameters).List(), argv: []string{ipaddr2, action}}
	}
	d := &duel{
		startFirst: our("start", 0), startFurther: our("start", 1), monitor: our("monitor", 1), validate: our("validate-all", 1),
		metaData: our("meta-data", 1), stopFurther: our("stop", 1), stopLast: our("stop", 0),
		theirMonitor: their("monitor", nil), theirValidate: their("validate-all", nil), theirMetaData: their("meta-data", nil),
		floors: floors,
	}
	for _, a := range []struct {
		name       string
		parameters harness.Parameters
	}{
		{"arp_count=5 in the background (defaults)", nil},
		{"arp_count=1 in the background", harness.Parameters{"arp_count": "1"}},
		{"arp_count=1, waited for (arp_bg=false)", harness.Parameters{"arp_count": "1", "arp_bg": "false"}},
	} {
		d.arp = append(d.arp, &arpSetting{a.name, their("start", a.parameters), their("stop", a.parameters)})
	}
	return d
}

// order is everything once, in turns, with one way to announce.
func (d *duel) order(arp *arpSetting) []*series {
	return append([]*series{
		d.startFirst, arp.start, d.startFurther,
		d.monitor, d.theirMonitor, d.validate, d.theirValidate, d.metaData, d.theirMetaData,
		d.stopFurther, arp.stop, d.stopLast,
	}, d.floors...)
}

// run does everything some times, and once before that to warm up.
func (d *duel) run(ctx context.Context, p *progress, node *lan.Host, rounds int) error {
	return node.Do(func() error {
		for round := range rounds + 1 {
			p.report("both agents in turns: round %d of %d, and one to warm up", round, rounds)
			for _, arp := range d.arp {
				for _, s := range d.order(arp) {
					if err := s.run(ctx); err != nil {
						return err
					}
					if round == 0 {
						s.laps = nil
					}
				}
			}
		}
		return nil
	})
}

// A pair is the same action of both agents.
type pair struct {
	name         string
	ours, theirs lap
	runs         int // of ours
}

// pairs returns the medians, IPaddr2's start and stop with whatever setting made them the quickest.
func (d *duel) pairs() []pair {
	var starts, stops []lap
	for _, a := range d.arp {
		starts = append(starts, median(a.start.laps))
		stops = append(stops, median(a.stop.laps))
	}
	start, stop := least(starts), least(stops)
	of := func(name string, s *series, theirs lap) pair { return pair{name, median(s.laps), theirs, len(s.laps)} }
	return []pair{
		of(monitorRuns, d.monitor, median(d.theirMonitor.laps)),
		of(startFurther, d.startFurther, start),
		of("start of the first bucket", d.startFirst, start),
		of("stop of a further bucket", d.stopFurther, stop),
		of("stop of the last bucket", d.stopLast, stop),
		of("validate-all", d.validate, median(d.theirValidate.laps)),
		of("meta-data", d.metaData, median(d.theirMetaData.laps)),
	}
}

// least takes the least wall time and the least CPU time.
func least(laps []lap) lap {
	l := laps[0]
	for _, other := range laps[1:] {
		l.wall, l.cpu = min(l.wall, other.wall), min(l.cpu, other.cpu)
	}
	return l
}

// A floor is what programs cost that do nothing: the least possible.
type floor struct {
	all     []*series
	emptyGo *series
}

func newFloor(ctx context.Context, scratch string) (floor, error) {
	const source = "ocf-clusterip/tests/bench/empty"
	empty := filepath.Join(scratch, "empty")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", empty, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return floor{}, fmt.Errorf("go build %s: %w\n%s", source, err, out)
	}
	emptyGo := &series{name: "an empty static Go program", argv: []string{empty}}
	return floor{emptyGo: emptyGo, all: []*series{
		{name: "/bin/true", argv: []string{"/bin/true"}},
		{name: "an empty /bin/sh script", argv: []string{"/bin/sh", "-c", ":"}},
		emptyGo,
	}}, nil
}
