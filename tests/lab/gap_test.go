//go:build system

package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/probe"
)

var moveRounds = flag.Int("move-rounds", 1, "how often TestPlannedMovesLeaveNoGap makes all its moves")

// linger is the parameter's default.
const linger = 5 * time.Second

// quickly is how many sources ask all the time, beside those of a drained.
const quickly = 64

// askQuickly begins to ask by ping, datagram and new connection, from sources that nobody else has.
func (d *drained) askQuickly(every time.Duration) *probe.Probe {
	d.t.Helper()
	const others = 2*asking + streaming
	p, err := d.ProbeWith(d.t.Context(), probe.Options{
		Target: shared, Sources: d.Network.Sources(others + quickly)[others:], Interval: every, Requests: true,
		Protos: []probe.Proto{probe.ICMP, probe.UDP, probe.Connect},
	})
	check(d.t, err)
	ctx, cancel := context.WithTimeout(d.t.Context(), stepTimeout)
	defer cancel()
	check(d.t, p.WaitAnswered(ctx, time.Now()))
	return p
}

func bucketOfClient(client netip.Addr) int { return Bucket(shared, client, buckets) }

// takeovers prints what the agents logged of takeovers since a moment, and returns how many there were.
func (s *scenario) takeovers(since time.Time) int {
	s.t.Helper()
	count := 0
	lines, err := s.LogLines(since, func(l LogLine) bool {
		taken := strings.Contains(l.Text, "taken over from")
		if taken && l.Daemon == "pacemaker-execd" {
			count++
		}
		return l.Daemon == "pacemaker-execd" && (taken || strings.Contains(l.Text, "WARNING") || strings.Contains(l.Text, "nobody answers") ||
			strings.Contains(l.Text, "ask in vain"))
	})
	check(s.t, err)
	for _, l := range lines {
		_, text, _ := strings.Cut(l.Text, "[ ")
		s.t.Logf("%s %s: %s", l.Time.Format("15:04:05.000"), l.Node, strings.TrimSuffix(text, " ]"))
	}
	return count
}

// A lateStart is a bucket that was started when the old owner no longer answered for it: Pacemaker took longer than linger, as it does when
// it finds the machine busy. From then on nobody answers until the start has ended.
type lateStart struct {
	bucket   int
	from, to time.Time
}

func (l lateStart) has(bucket int, at time.Time) bool {
	return l.bucket == bucket && at.After(l.from) && at.Before(l.to)
}

var stopBegins = regexp.MustCompile(`^executing - rsc:` + resource + `:(\d+) action:stop `)

// lateStarts returns those since a moment.
func (s *scenario) lateStarts(since time.Time) []lateStart {
	s.t.Helper()
	stops, err := s.LogLines(since, func(l LogLine) bool { return stopBegins.MatchString(l.Text) })
	check(s.t, err)
	results, err := s.Results(since)
	check(s.t, err)
	var late []lateStart
	for _, stop := range stops {
		name := stopBegins.FindStringSubmatch(stop.Text)[1]
		started := slices.IndexFunc(results, func(r Result) bool {
			return r.Action == "start" && r.OK() && r.Resource == resource+":"+name && r.Time.After(stop.Time)
		})
		if started < 0 {
			continue
		}
		from, to := stop.Time.Add(linger), results[started].Time
		if to.After(from) {
			bucket, err := strconv.Atoi(name)
			check(s.t, err)
			// Wider by what a question takes, and by what some logs round times to.
			late = append(late, lateStart{bucket, from.Add(-time.Second), to.Add(time.Second)})
			s.t.Logf("bucket %d was started by %s only, more than %s after its stop began", bucket, to.Format("15:04:05.000"), linger)
		}
	}
	return late
}

// missesNothing expects that every question was answered, once, except while buckets were started late, and that no connection broke. Other
// questions were late at most because the machine was busy: that is no fault.
func (s *scenario) missesNothing(log *probe.Log, late []lateStart) {
	s.t.Helper()
	summary := log.Summary()
	s.t.Logf("\n%s", summary)
	excused := 0
	answeredLate := map[[2]any]bool{}
	key := func(e probe.Event) [2]any { return [2]any{fmt.Sprint(e.Source, e.Proto), e.Number} }
	for _, e := range log.Of(probe.Late) {
		answeredLate[key(e)] = true
	}
	var faults []probe.Event
	for _, e := range log.Of(probe.Lost) {
		asked := log.Start.Add(e.At - e.After)
		switch {
		case answeredLate[key(e)]:
		case slices.ContainsFunc(late, func(l lateStart) bool { return l.has(bucketOfClient(e.Source), asked) }):
			excused++
		default:
			faults = append(faults, e)
		}
	}
	total := summary.Total
	s.t.Logf("%d questions: %d answered late, %d not answered (%d of them while a bucket was started late), %d refused, %d answered twice; "+
		"%d connections broke", total.Asked, total.Late, total.Unanswered(), excused, total.Refused, total.Duplicates, total.Broken)
	for _, kind := range []probe.Kind{probe.Refused, probe.Duplicate, probe.WrongMAC, probe.Broken} {
		faults = append(faults, log.Of(kind)...)
	}
	if total.Asked == 0 || len(faults) > 0 {
		s.t.Errorf("of %d questions %d went wrong", total.Asked, len(faults))
	}
	const most = 20
	for _, e := range faults[:min(most, len(faults))] {
		s.t.Logf("%s (bucket %d)", e, bucketOfClient(e.Source))
	}
}

// keep writes a log to where the test keeps what it made.
func (s *scenario) keep(log *probe.Log, name string) {
	s.t.Helper()
	f, err := os.Create(filepath.Join(s.t.ArtifactDir(), name))
	check(s.t, err)
	_, err = log.WriteTo(f)
	check(s.t, errors.Join(err, f.Close()))
}

// Planned moves cost no client anything: no answer is lost or late, none comes twice, no connection breaks. It prints how long the buckets
// were silent, which nothing is asserted of. It has the machine to itself: what a busy one adds would hide the gaps.
func TestPlannedMovesLeaveNoGap(t *testing.T) {
	drain := 600 + 120*(*moveRounds) // connections must not end with it
	d := playDraining(t, Options{}, drain)
	folder := t.ArtifactDir() // made before the cleanup below, so that it is removed after it
	t.Cleanup(func() { check(t, d.CopyLogs(folder)) })
	all := []string{"node1", "node2", "node3"}
	var inTime, tooLate, still []probe.Gap
	for round := range *moveRounds {
		t.Logf("round %d", round+1)
		since := d.Now()
		clients := d.askQuickly(20 * time.Millisecond)
		change := func(what string, do func(), nodes ...string) {
			clients.Mark(what)
			d.change(what, do, nodes...)
		}
		leave := func(what string, do func(), node string) {
			clients.Mark(what)
			d.leave(what, do, node)
			check(t, d.WaitIdle(t.Context()))
		}
		change("node2 in standby", func() { d.pcs("node", "standby", "node2") }, "node1", "node3")
		change("node2 back", func() { d.pcs("node", "unstandby", "node2") }, all...)
		leave("banned from node1", func() { d.pcs("resource", "ban", resource+"-clone", "node1") }, "node1")
		change("ban lifted", func() { d.pcs("resource", "clear", resource+"-clone") }, all...)
		leave("Pacemaker on node3 stopped", func() { run(t, d.Hosts[2], "service", "pacemaker", "stop") }, "node3")
		change("Pacemaker on node3 started", func() {
			run(t, d.Hosts[2], "service", "pacemaker", "start")
			check(t, d.WaitOnline(t.Context()))
		}, all...)
		log, err := clients.Stop()
		check(t, err)
		d.keep(log, fmt.Sprintf("round%d.log", round+1))
		late := d.lateStarts(since)
		d.missesNothing(log, late)
		if d.takeovers(since) == 0 {
			t.Error("no bucket was taken over from a node that still answered for it")
		}
		moved, s := log.Gaps(bucketOfClient)
		still = append(still, s...)
		for _, g := range moved {
			name := "in time"
			if slices.ContainsFunc(late, func(l lateStart) bool { return l.has(g.Bucket, log.Start.Add(g.At)) }) {
				name = "too late"
				tooLate = append(tooLate, g)
			} else {
				inTime = append(inTime, g)
			}
			t.Logf("%8.3f s: bucket %d moved from %s to %s %s: %s asked in vain", g.At.Seconds(), g.Bucket, g.From, g.To, name, g.Length)
		}
	}
	late := d.lateStarts(d.begin)
	own, err := d.probe.Stop()
	check(t, err)
	d.missesNothing(own, late)
	streams, err := d.streams.Stop()
	check(t, err)
	d.missesNothing(streams, late)
	if len(inTime)+len(tooLate) == 0 {
		t.Error("nothing has moved")
	}
	t.Logf("the longest time that a bucket's clients asked in vain:\n%s%s%s", probe.Distribution("moves", inTime),
		probe.Distribution("moves that began more than linger before they ended", tooLate),
		probe.Distribution("times a bucket did not move meanwhile", still))
}

// losing lets the switch lose takeover frames that match an expression of nft, until the function is called that it returns.
func (d *drained) losing(frames string) (end func()) {
	d.t.Helper()
	nft := func(rules string) {
		d.t.Helper()
		if r := d.Network.Switch.Run(d.t.Context(), environment, "nft", rules); r.Err != nil || r.ExitCode != 0 {
			d.t.Fatalf("nft on the switch: %v\n%s", r.Err, r.Stderr)
		}
	}
	nft("table bridge loses { chain frames { type filter hook forward priority 0; ether type 0x88b5 " + frames + " counter drop; }; }")
	return func() {
		d.t.Helper()
		counters := d.Network.Switch.Run(d.t.Context(), environment, "nft", "list", "table", "bridge", "loses")
		if strings.Contains(counters.Stdout, "packets 0 ") || counters.ExitCode != 0 {
			d.t.Errorf("the switch has lost no frame: %v\n%s%s", counters.Err, counters.Stdout, counters.Stderr)
		}
		nft("delete table bridge loses")
	}
}

// killingSweepers kills every sweeper of the hosts, again and again, until the function is called that it returns.
func (d *drained) killingSweepers() (end func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	var killing sync.WaitGroup
	killed := 0
	killing.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(pollInterval / 2) {
			for _, h := range d.Hosts {
				if h.KillProcess("a sweeper", func(_ string, argv []string) bool { return argv[len(argv)-1] == "sweep" }) == nil {
					killed++
				}
			}
		}
	})
	return func() {
		d.t.Helper()
		cancel()
		killing.Wait()
		if d.t.Logf("%d sweepers killed", killed); killed == 0 {
			d.t.Error("no sweeper was killed")
		}
	}
}

// Whatever becomes of the frames of takeovers, and of the sweepers, no client gets two answers, no stream breaks, and the buckets move.
func TestTakeoversGetLost(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{}, 600)
	all := []string{"node1", "node2", "node3"}
	const ethernetHeader = 14 // bytes
	const token = ethernetHeader + clusterip.TakeoverTokenAt
	for _, fault := range []struct {
		name  string
		begin func() (end func())
	}{
		{"confirmations are lost", func() func() { return d.losing(fmt.Sprintf("@ll,%d,32 > 1", 8*token)) }},
		{"requests and confirmations are lost", func() func() { return d.losing("") }},
		{"sweepers are killed", d.killingSweepers},
	} {
		since := d.Now()
		clients := d.askQuickly(50 * time.Millisecond)
		end := fault.begin()
		for _, step := range []struct {
			what  string
			do    string
			nodes []string
		}{{"node2 in standby", "standby", []string{"node1", "node3"}}, {"node2 back", "unstandby", all}} {
			clients.Mark(step.what)
			d.change(fault.name+": "+step.what, func() { d.pcs("node", step.do, "node2") }, step.nodes...)
		}
		end()
		d.exactlyOnce(shared, buckets)
		log, err := clients.Stop()
		check(t, err)
		d.answeredOnce(log)
		moved, _ := log.Gaps(bucketOfClient)
		if len(moved) == 0 {
			t.Errorf("%s: nothing has moved", fault.name)
		}
		d.takeovers(since)
		t.Logf("%s:\n%s%s", fault.name, log.Summary(), probe.Distribution("moves", moved))
	}
	d.finish()
}
