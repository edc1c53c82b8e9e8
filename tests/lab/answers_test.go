//go:build system

package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/tests/harness"
)

// recordTo is a folder to which what Pacemaker's programs answer is written: `make record-answers`.
var recordTo = flag.String("record", "", "write what Pacemaker's programs answer to this `folder`, for the tests of internal/pacemaker")

// places is where each node is.
type places map[string]handover.Membership

// answers is a cluster whose programs' answers are read, and perhaps recorded.
type answers struct {
	*Lab
	t       *testing.T
	version string // Pacemaker's, without Debian's part
}

func listen(t *testing.T, o Options) *answers {
	t.Helper()
	agent, err := harness.Program()
	check(t, err)
	o.Agent = agent
	a := &answers{Lab: start(t, o), t: t}
	version, err := packageVersion(t.Context(), a.Hosts[0].root, "pacemaker")
	check(t, err)
	a.version, _, _ = strings.Cut(version, "-")
	run(t, a.Hosts[0], "pcs", "resource", "create", resource, "ocf:custom:clusterip", "ip="+shared.String(), "drain=60",
		"clone", "clone-max=3", "clone-node-max=3", "globally-unique=true")
	check(t, a.WaitIdle(t.Context()))
	return a
}

// record keeps an answer, under a name made of the program, the version and the situation.
func (a *answers) record(program, situation, extension, text string) {
	a.t.Helper()
	if *recordTo != "" {
		check(a.t, os.WriteFile(filepath.Join(*recordTo, program+"-"+a.version+"-"+situation+extension), []byte(text), 0o644))
	}
}

// until waits until the first host has these states of the nodes.
func (a *answers) until(situation string, want places) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), stepTimeout)
	defer cancel()
	for {
		text, got, err := a.presence(ctx)
		diff := cmp.Diff(want, got)
		if err == nil && diff == "" {
			a.record("cibadmin", situation, ".xml", text)
			a.record("attrd_updater", situation, ".txt", run(a.t, a.Hosts[0], "attrd_updater", "--name", attribute, "--query", "-A"))
			return
		}
		select {
		case <-ctx.Done():
			a.t.Fatalf("%s: %v (-want +got):\n%s\n%s", situation, err, diff, text)
		case <-time.After(pollInterval):
		}
	}
}

func (a *answers) presence(ctx context.Context) (text string, got places, err error) {
	if text, err = a.Hosts[0].Run(ctx, "cibadmin", "--query", "--local", "--xpath", "/cib/status"); err != nil {
		return text, nil, err
	}
	presence, err := pacemaker.ParseNodeStates(text)
	got = places{}
	for node, p := range presence {
		got[node] = p.Membership
	}
	return text, got, err
}

// The states of nodes in this release of Pacemaker, and what its programs print about attributes and resources.
func TestAnswersAreUnderstood(t *testing.T) {
	t.Parallel()
	t.Run("with fencing", func(t *testing.T) {
		t.Parallel()
		a := listen(t, Options{StayOff: true})
		a.attributes()
		a.until("all-members", places{"node1": handover.Member, "node2": handover.Member, "node3": handover.Member})
		view := run(t, a.Hosts[0], "crm_mon", "--one-shot", "--output-as=xml", "--include=none,dc,options,nodes,resources,failures")
		a.record("crm_mon", "all-members", ".xml", view)
		seen, err := pacemaker.ParseView(view)
		check(t, err)
		if !seen.Fencing || !seen.Quorum || len(seen.Nodes) != 3 || len(seen.Instances) != 3 {
			t.Errorf("crm_mon is understood as %+v", seen)
		}
		run(t, a.Hosts[2], "service", "pacemaker", "stop")
		a.until("left", places{"node1": handover.Member, "node2": handover.Member, "node3": handover.Left})
		run(t, a.Hosts[2], "service", "corosync", "stop")
		a.until("left-with-corosync", places{"node1": handover.Member, "node2": handover.Member, "node3": handover.Left})
		run(t, a.Hosts[2], "service", "corosync", "start")
		run(t, a.Hosts[2], "service", "pacemaker", "start")
		check(t, a.WaitOnline(t.Context()))
		check(t, a.WaitIdle(t.Context()))
		check(t, a.Hosts[1].Off())
		a.fenced("node2")
		a.until("fenced", places{"node1": handover.Member, "node2": handover.Dead, "node3": handover.Member})
	})
	t.Run("without fencing", func(t *testing.T) {
		t.Parallel()
		a := listen(t, Options{NoFencing: true})
		a.attributes()
		check(t, a.Hosts[2].Off())
		a.until("crashed", places{"node1": handover.Member, "node2": handover.Member, "node3": handover.Lost})
	})
}

// fenced waits until a host was fenced, and the cluster has recorded it.
func (a *answers) fenced(name string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), stepTimeout)
	defer cancel()
	_, err := a.WaitFor(ctx, func(s *Status) error {
		if n := s.Nodes[name]; n.Online || n.Unclean || a.Host(name).Fenced().IsZero() {
			return fmt.Errorf("%s is %s", name, n)
		}
		return nil
	})
	check(a.t, err)
	check(a.t, a.WaitIdle(ctx))
}

// attribute is one that the agent would set.
const attribute = "clusterip-192.168.10.3-7"

// attributes sets one of each node as the agent does, and reads it on all; and one that no node has.
func (a *answers) attributes() {
	a.t.Helper()
	want := map[string]string{"node1": "node1:60", "node2": "none", "node3": "node3:59,node1:60"}
	for node, value := range want {
		run(a.t, a.Hosts[0], "attrd_updater", "--private", "--name", attribute, "--node", node, "--update", value)
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), stepTimeout)
	defer cancel()
	for _, h := range a.Hosts {
		for { // other nodes may learn a value a moment later
			got, err := pacemaker.ParseAttributes(run(a.t, h, "attrd_updater", "--name", attribute, "--query", "-A"), attribute)
			check(a.t, err)
			diff := cmp.Diff(want, got)
			if diff == "" {
				break
			}
			if ctx.Err() != nil {
				a.t.Fatalf("on %s (-want +got):\n%s", h.Name, diff)
			}
			time.Sleep(pollInterval)
		}
	}
	argv, err := a.Hosts[0].EnterCommand("attrd_updater", "--name", "clusterip-192.168.10.3-8", "--query", "-A")
	check(a.t, err)
	if r := a.Hosts[0].machine.Run(a.t.Context(), environment, argv...); r.Err != nil || !pacemaker.NoSuchAttribute(r.ExitCode) {
		a.t.Error(errors.Join(fmt.Errorf("an attribute that no node has: exit status %d: %s", r.ExitCode, r.Stderr), r.Err))
	}
}
