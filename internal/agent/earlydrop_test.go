package agent

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

func TestMonitorSeesWhatIsWrongWithEarlyDrop(t *testing.T) {
	tests := map[string]struct {
		spoil func(*clusterip.EarlyDropState)
		says  string
	}{
		"as installed":     {func(*clusterip.EarlyDropState) {}, ""},
		"detached":         {func(e *clusterip.EarlyDropState) { *e = clusterip.EarlyDropState{} }, "no longer attached to eth0"},
		"record lost":      {func(e *clusterip.EarlyDropState) { e.Addresses, e.Idle = nil, true }, "drops nothing for this resource"},
		"record changed":   {func(e *clusterip.EarlyDropState) { e.Faults = []string{"another seed"} }, "another seed"},
		"a bit is missing": {func(e *clusterip.EarlyDropState) { e.Passed = []clusterip.Bucket{5} }, "drops packets of buckets 2, which"},
		"a bit too many": {
			func(e *clusterip.EarlyDropState) { e.Passed = []clusterip.Bucket{2, 3, 5} }, "passes packets of buckets 3, which",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 2, 5)}
			agent, _ := agentOn(kernel)
			tt.spoil(&kernel.EarlyDrop)
			err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0)
			if tt.says == "" && err != nil || tt.says != "" && (ocf.CodeOf(err) != ocf.ErrGeneric || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// An agent that does not know the program has changed the tables: their stamp does not name it.
func TestMonitorSeesWhatAnOlderAgentHasLeft(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 2, 5)}
	kernel.Tables.Installed.EarlyDrop = clusterip.EarlyDropOff
	agent, _ := agentOn(kernel)
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0); err != nil {
		t.Error(err)
	}
	kernel.EarlyDrop.Passed = []clusterip.Bucket{2}
	err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0)
	if ocf.CodeOf(err) != ocf.ErrGeneric || !strings.Contains(err.Error(), "drops packets of buckets 5, which the node serves") {
		t.Error(err)
	}
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 5)); err != nil {
		t.Error(err)
	}
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0); err != nil {
		t.Error(err)
	}
}

// The monitor that removes the rules for drain leaves the interface alone.
func TestNoMonitorAttachesTheProgram(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 2)}
	installed := *kernel.Tables.Installed
	installed.Drains, installed.EarlyDrop = true, clusterip.EarlyDropOff
	kernel.Tables.Installed, kernel.EarlyDrop = &installed, clusterip.EarlyDropState{}
	agent, _ := agentOn(kernel)
	if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0); err != nil {
		t.Error(err)
	}
	if kernel.Tables.Installed.Drains {
		t.Error("the rules for drain are still there: this test shows nothing")
	}
	if kernel.EarlyDrop.Attached != "" {
		t.Errorf("attached as %s", kernel.EarlyDrop.Attached)
	}
}

// A driver that stops the interface for a moment to attach the program makes no start fail.
func TestStartWaitsForTheLink(t *testing.T) {
	kernel := &fakeKernel{State: freshNode(), stopsLink: 5}
	agent, _ := agentOn(kernel)
	if err := agent.Start(t.Context(), specOf(clusterip.Multicast, 2)); err != nil {
		t.Error(err)
	}
}

func TestStartWithoutBPF(t *testing.T) {
	kernel := &fakeKernel{State: freshNode(), noEarlyDrop: true}
	agent, _ := agentOn(kernel)
	for _, bucket := range []clusterip.Bucket{2, 5} {
		if err := agent.Start(t.Context(), specOf(clusterip.Multicast, bucket)); err != nil {
			t.Fatal(err)
		}
		if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, bucket), 0); err != nil {
			t.Error(err)
		}
	}
	if kernel.Tables.Installed.DropsEarly() {
		t.Error("the stamp says that packets are dropped early")
	}
}

func TestStartThatCannotDropEarlyAsRequested(t *testing.T) {
	kernel := &fakeKernel{State: freshNode(), noEarlyDrop: true}
	agent, _ := agentOn(kernel)
	spec := specOf(clusterip.Multicast, 2)
	spec.EarlyDrop = clusterip.EarlyDropXDP
	if err := agent.Start(t.Context(), spec); ocf.CodeOf(err) != ocf.ErrInstalled {
		t.Error(err)
	}
	if len(kernel.applied) > 0 {
		t.Errorf("it did %q", kernel.applied)
	}
}

// A start that fails, or is killed, after the program passes its bucket makes no monitor of another bucket fail.
func TestFailedStartLeavesNoFaultOfEarlyDrop(t *testing.T) {
	start := func(agent Agent) error { return agent.Start(t.Context(), specOf(clusterip.Multicast, 5)) }
	for name, change := range map[string]func(*fakeKernel, int){
		"refused": func(k *fakeKernel, step int) { k.failAt = step },
		"killed":  func(k *fakeKernel, step int) { k.dieAt = step },
	} {
		t.Run(name, func(t *testing.T) {
			const lastStep = 2 // the first changes the program, the second the tables
			kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 2)}
			agent, _ := agentOn(kernel)
			change(kernel, lastStep)
			func() {
				defer func() { _ = recover() }()
				if err := start(agent); err == nil {
					t.Error("start succeeded")
				}
			}()
			kernel.failAt, kernel.dieAt = 0, 0
			if err := agent.Stop(t.Context(), specOf(clusterip.Multicast, 5)); err != nil {
				t.Error(err)
			}
			if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 2), 0); err != nil {
				t.Errorf("monitor of the other bucket: %v", err)
			}
		})
	}
}

// A change of early_drop disturbs no bucket, and no monitor of an instance that Pacemaker has not reloaded yet.
func TestEarlyDropIsReloadable(t *testing.T) {
	kernel := &fakeKernel{State: runningNode(t, clusterip.Multicast, 2, 5)}
	agent, _ := agentOn(kernel)
	for _, early := range []clusterip.EarlyDrop{
		clusterip.EarlyDropTC, clusterip.EarlyDropAuto, clusterip.EarlyDropXDP, clusterip.EarlyDropOff, clusterip.EarlyDropAuto,
	} {
		before := kernel.EarlyDrop.Attached
		for _, bucket := range []clusterip.Bucket{2, 5} {
			spec := specOf(clusterip.Multicast, bucket)
			spec.EarlyDrop = early
			if err := agent.Reload(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			if err := agent.Monitor(t.Context(), specOf(clusterip.Multicast, 7-bucket), 0); err != nil {
				t.Errorf("%s: monitor of the other bucket: %v", early, err)
			}
		}
		want := map[clusterip.EarlyDrop]clusterip.EarlyDrop{
			clusterip.EarlyDropOff: "", clusterip.EarlyDropAuto: before, clusterip.EarlyDropTC: early, clusterip.EarlyDropXDP: early,
		}[early]
		if attached := kernel.EarlyDrop.Attached; attached != want {
			t.Errorf("%s: it is attached as %q", early, attached)
		}
	}
}
