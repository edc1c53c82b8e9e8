package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Actions that a promise is about.
const (
	monitorRuns  = "monitor of a bucket"
	startFurther = "start of a further bucket"
)

// promises are how many times cheaper than IPaddr2's an action must be, in wall time and in CPU time.
var promises = []struct {
	action string
	factor float64
}{{monitorRuns, 20}, {startFurther, 10}}

// ratio returns how many times cheaper the action is than IPaddr2's.
func (p pair) ratio() (wall, cpu float64) {
	return float64(p.theirs.wall) / float64(p.ours.wall), float64(p.theirs.cpu) / float64(p.ours.cpu)
}

// promised returns the lesser ratio of an action that a promise is about.
func (r results) promised(action string) (least, wall, cpu float64) {
	for _, p := range r.pairs {
		if p.name == action {
			wall, cpu = p.ratio()
		}
	}
	return min(wall, cpu), wall, cpu
}

func (r results) kept() bool {
	for _, p := range promises {
		if least, _, _ := r.promised(p.action); least < p.factor {
			return false
		}
	}
	_, met := r.packets.verdicts()
	return met && r.race.kept()
}

// report returns all results as text.
func (r results) report(quick bool) string {
	text := "\nEach action, from fork to exit: medians in ms\n\n" + r.actions() +
		`
  IPaddr2 has the least of its figures below. Our start of the first bucket waits between three announcements (arp_count,
  arp_interval: 40 ms). At the end of a stop the kernel waits until what was deleted is freed; the bucket is silent long before.
` +
		"\nIPaddr2 by how it announces its address: medians in ms, without what it leaves in the background\n\n" + r.announcements() +
		"\nThe least that any program costs here: medians in ms\n\n" + r.least() +
		"\nAll instances on one node together: medians in ms\n\n" + r.together() +
		"\nA packet, from the sender's call until TCP or UDP would get it: medians, beside the same to an address of the node's own\n\n" +
		r.floodTable() +
		r.packets.report() +
		r.race.report() +
		"\nPromises\n\n" + r.verdicts() +
		"\nTargets for a packet\n\n" + r.packets.targets()
	if quick {
		text += "\n  -quick: the figures of so few runs mean little.\n"
	}
	return text
}

func (r results) actions() string {
	var t table
	t.row("", "ours", "ours", "IPaddr2", "IPaddr2", "times", "cheaper", "our")
	t.row("action", "wall", "CPU", "wall", "CPU", "wall", "CPU", "runs")
	for _, p := range r.pairs {
		wall, cpu := p.ratio()
		t.row(slices.Concat([]string{p.name}, p.ours.cells(), p.theirs.cells(),
			[]string{fmt.Sprintf("%.1f", wall), fmt.Sprintf("%.1f", cpu), fmt.Sprint(p.runs)})...)
	}
	return t.String()
}

func (r results) announcements() string {
	var t table
	t.row("", "start", "start", "stop", "stop", "")
	t.row("parameters", "wall", "CPU", "wall", "CPU", "runs")
	for _, a := range r.arp {
		t.row(slices.Concat([]string{a.name}, median(a.start.laps).cells(), median(a.stop.laps).cells(),
			[]string{fmt.Sprint(len(a.start.laps))})...)
	}
	return t.String()
}

func (r results) least() string {
	var t table
	t.row("program", "wall", "CPU", "runs")
	for _, s := range r.all {
		t.row(slices.Concat([]string{s.name}, median(s.laps).cells(), []string{fmt.Sprint(len(s.laps))})...)
	}
	return t.String()
}

func (r results) together() string {
	var t table
	t.row("", "", "start", "start", "monitor", "monitor", "stop", "stop", "")
	t.row("instances", "at once", "wall", "CPU", "wall", "CPU", "wall", "CPU", "runs")
	for _, c := range r.crowds {
		t.row(slices.Concat([]string{fmt.Sprint(c.instances), fmt.Sprint(c.jobs)},
			median(c.start).cells(), median(c.monitor).cells(), median(c.stop).cells(), []string{fmt.Sprint(len(c.start))})...)
	}
	return t.String()
}

func (r results) verdicts() string {
	var t table
	for _, p := range promises {
		least, wall, cpu := r.promised(p.action)
		verdict := "kept"
		if least < p.factor {
			verdict = "NOT KEPT"
		}
		t.row(fmt.Sprintf("%s at least %.0f times cheaper than IPaddr2's", p.action, p.factor), verdict,
			fmt.Sprintf("%.1f in wall time, %.1f in CPU time", wall, cpu))
	}
	t.row(r.race.verdict()...)
	for _, p := range r.pairs {
		if p.name == monitorRuns {
			p.ours = median(r.emptyGo.laps)
			wall, cpu := p.ratio()
			t.row("for comparison: a Go program that does nothing, beside IPaddr2's monitor", "",
				fmt.Sprintf("%.1f in wall time, %.1f in CPU time", wall, cpu))
		}
	}
	return t.String()
}

// describe returns what is compared, and on which machine.
func describe(ctx context.Context, agent string, rounds int, took time.Duration) string {
	return fmt.Sprintf("%s beside ocf:heartbeat:IPaddr2 of resource-agents %s\n%s; %d rounds in %.0f s\n",
		firstLine(ctx, agent, "--version"),
		firstLine(ctx, "dpkg-query", "-W", "-f", "${Version}", "resource-agents"),
		machine(), rounds, took.Seconds())
}

// machine returns on what was measured. The load average is that of the last minute, so the measurement is part of it.
func machine() string {
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	return fmt.Sprintf("%s, %d cores of %s, load average %s", kernel(), runtime.NumCPU(), processor(), load)
}

// firstLine returns the first line that a program prints, or why there is none.
func firstLine(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return fmt.Sprintf("(%s: %v)", argv[0], err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Sprintf("(uname: %v)", err)
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
