package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/probe"
)

const (
	around = 3 * time.Second // before and after a fault, in its timeline

	// What is printed of the faults; the rest is in the files.
	faultsPrinted, linesPrinted = 3, 40
	flowsShown                  = 3 // of a fault, one by one
)

// stamp is a time as Pacemaker logs it.
func stamp(at time.Time) string { return at.Format("15:04:05.000") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// report judges, writes the files, and prints the results.
func (f *field) report(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	losses := map[string][]time.Time{}
	for _, h := range f.Hosts {
		losses[h.Name] = h.PowerLosses()
	}
	deaths, unasked := deathsOf(f.deaths, losses)
	for _, d := range unasked {
		f.found(fault{from: d.off, to: d.off, bucket: noBucket, title: d.node + " was fenced, although nothing was done to it"})
	}
	var all verdict
	var logs []*probe.Log
	for _, p := range f.probes {
		l, err := p.Stop()
		if err != nil {
			return err
		}
		logs = append(logs, l)
		v := judge(l, deaths)
		all.signs = append(all.signs, v.signs...)
		all.reset, all.timedOut = all.reset+v.reset, all.timedOut+v.timedOut
	}
	faults := append(slices.Clone(f.faults), group(all.signs)...)
	slices.SortStableFunc(faults, func(a, b fault) int { return a.from.Compare(b.from) })
	results, err := f.Results(f.begin)
	if err != nil {
		return err
	}
	if err := errors.Join(f.write(logs), f.writeFaults(faults, logs)); err != nil {
		return err
	}
	f.summarise(logs, all, deaths, results)
	if len(faults) == 0 {
		f.say("nothing was answered twice, and no connection to a living host broke: seed %d; logs are in %s", f.seed, f.out)
		return nil
	}
	for i, fault := range faults {
		f.say("FAULT %d, after %s: %s", i+1, f.since(fault.from), fault.title)
	}
	return fmt.Errorf("seed %d: %d faults; look at %s/fault-*.txt; again: %s", f.seed, len(faults), f.out, f.again())
}

// since is how long after the beginning that was.
func (f *field) since(at time.Time) string { return fmt.Sprintf("%.3f s", at.Sub(f.begin).Seconds()) }

// summarise prints the figures of the run.
func (f *field) summarise(logs []*probe.Log, v verdict, deaths []death, results []lab.Result) {
	var total probe.Counts
	opened := 0
	for _, l := range logs {
		c := l.Summary().Total
		total.Asked, total.Answered, total.Lost = total.Asked+c.Asked, total.Answered+c.Answered, total.Lost+c.Lost
		opened += len(l.Of(probe.Open))
	}
	moves := 0
	failed := map[string]int{}
	for _, r := range results {
		if !strings.HasPrefix(r.Resource, resource+":") {
			continue
		}
		if r.Action == "start" && r.OK() {
			moves++
		}
		if !r.OK() && r.Outcome != "cancelled" {
			failed[r.Action+": "+r.Outcome]++
		}
	}
	kinds := map[string]int{}
	for _, s := range v.signs {
		kinds[s.what]++
	}
	f.say("%d events, %d deaths, %d starts of buckets; %s, mac_mode=%s", f.events, len(deaths), moves, f.release, f.macMode)
	if f.cutShort != nil {
		f.say("cut short: %v", f.cutShort)
	}
	f.say("%d questions asked, %d answered, %d lost; %d long connections", total.Asked, total.Answered, total.Lost, opened)
	f.say("%d answered twice, %d connections to living hosts broken, %d refused, %d wrong MAC",
		kinds["answered twice"], kinds["broken"], kinds["refused"], kinds["wrong MAC"])
	f.say("of the connections to hosts that died, %d were reset and %d timed out", v.reset, v.timedOut)
	for _, what := range sortedKeys(failed) {
		f.say("actions that failed: %3d %s", failed[what], what)
	}
}

// write writes what the clients saw, all events, and what Pacemaker logged.
func (f *field) write(logs []*probe.Log) error {
	errs := []error{f.CopyLogs(f.out), f.file("events.txt", func(w io.Writer) error {
		for _, l := range f.all() {
			if _, err := fmt.Fprintf(w, "%s %9s  %-6s %s\n", stamp(l.at), f.since(l.at), l.who, l.text); err != nil {
				return err
			}
		}
		return nil
	})}
	for i, l := range logs {
		name := []string{"asking", "keeping"}[i]
		errs = append(errs,
			f.file(name+".log", func(w io.Writer) error { _, err := l.WriteTo(w); return err }),
			f.file(name+".svg", func(w io.Writer) error {
				return l.WriteSVG(w, probe.Picture{Title: fmt.Sprintf("Who answered, seed %d", f.seed), Bucket: bucketOf})
			}))
	}
	return errors.Join(errs...)
}

func (f *field) file(name string, write func(io.Writer) error) error {
	file, err := os.Create(filepath.Join(f.out, name))
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// writeFaults writes for each fault what happened around it, as text and as a picture, and prints the beginning of some.
func (f *field) writeFaults(faults []fault, logs []*probe.Log) error {
	if len(faults) == 0 {
		return nil
	}
	var errs []error
	for i, fault := range faults {
		lines, err := f.timeline(fault, logs)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("fault-%d", i+1)
		errs = append(errs, f.file(name+".txt", func(w io.Writer) error {
			_, err := fmt.Fprintf(
				w,
				"seed %d, after %s: %s\n%s\n%s",
				f.seed,
				f.since(fault.from),
				fault.title,
				fault.detail,
				strings.Join(lines, ""),
			)
			return err
		}))
		for _, l := range logs {
			part := l.Between(fault.from.Add(-2*around).Sub(l.Start), fault.to.Add(2*around).Sub(l.Start))
			if len(fault.flows) > 0 && slices.Contains(part.Sources(), fault.flows[0].source) {
				errs = append(errs, f.file(name+".svg", func(w io.Writer) error {
					return part.WriteSVG(w, probe.Picture{Title: fmt.Sprintf("Seed %d, fault %d", f.seed, i+1), Bucket: bucketOf})
				}))
			}
		}
		if i < faultsPrinted {
			f.say("fault %d, after %s: %s", i+1, f.since(fault.from), fault.title)
			fmt.Print("\n", strings.Join(lines[:min(len(lines), linesPrinted)], ""), "\n")
			if more := len(lines) - linesPrinted; more > 0 {
				fmt.Printf("(%d more lines in %s)\n\n", more, filepath.Join(f.out, name+".txt"))
			}
		}
	}
	return errors.Join(errs...)
}

// timeline is what happened around a fault, in the order of time: what was done, what its clients saw, and what the agents and the cluster
// logged of its bucket.
func (f *field) timeline(of fault, logs []*probe.Log) ([]string, error) {
	from, to := of.from.Add(-around), of.to.Add(around)
	var lines []line
	for _, l := range f.all() {
		if l.who == "event" || l.who == "power" {
			lines = append(lines, line{l.at, l.who, "==== " + strings.TrimSpace(l.text)})
		}
	}
	for _, l := range logs {
		lines = append(lines, seen(l, from, to, of.flows[:min(len(of.flows), flowsShown)])...)
	}
	logged, err := f.LogLines(f.begin, func(l lab.LogLine) bool { return concerns(l, of.bucket) })
	if err != nil {
		return nil, err
	}
	for _, l := range logged {
		text, _, _ := strings.Cut(l.Text, " | ")
		lines = append(lines, line{l.Time, l.Node, strings.TrimPrefix(l.Daemon, "pacemaker-") + ": " + text})
	}
	lines = slices.DeleteFunc(lines, func(l line) bool { return l.at.Before(from) || l.at.After(to) })
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var text []string
	for _, l := range lines {
		text = append(text, fmt.Sprintf("%s %11s  %-6s %s\n", stamp(l.at), f.since(l.at), l.who, l.text))
	}
	return text, nil
}

// seen are what some clients saw in a part of the time. Of answers in a row that one node gave to one of them, there is the first, and how
// many there were.
func seen(l *probe.Log, from, to time.Time, flows []flow) []line {
	var lines []line
	type answers struct {
		node  string
		line  int
		count int
	}
	row := map[flow]answers{}
	for _, e := range l.Events {
		of, at := flow{e.Source, e.Proto}, l.Start.Add(e.At)
		if e.Kind == probe.Mark || at.Before(from) || at.After(to) || !slices.Contains(flows, of) {
			continue
		}
		if e.Kind == probe.Answer && row[of].node == e.Node {
			a := row[of]
			a.count++
			row[of] = a
			continue
		}
		if a := row[of]; a.count > 0 {
			lines[a.line].text += fmt.Sprintf(" (and %d more)", a.count)
		}
		row[of] = answers{}
		if e.Kind == probe.Answer {
			row[of] = answers{node: e.Node, line: len(lines)}
		}
		text := fmt.Sprintf("%s %s #%d: %s %s %s", e.Proto, e.Source, e.Number, e.Kind, cmp.Or(e.Node, "by no node"), e.Text)
		lines = append(lines, line{at, "wire", strings.TrimSpace(text)})
	}
	for _, a := range row {
		if a.count > 0 {
			lines[a.line].text += fmt.Sprintf(" (and %d more)", a.count)
		}
	}
	return lines
}

// ofNodes matches log lines about the states of nodes.
var ofNodes = regexp.MustCompile(
	`state is now (lost|member)|Operation '?(reboot|off)'?|will be fenced|` +
		`[Ss]cheduling .*fencing|Quorum (lost|acquired)|[Ss]hutting down|is unclean`,
)

// concerns returns whether a line is about a bucket: the agent's log, the results of its actions, the announcements. With noBucket, it is
// about all buckets.
func concerns(l lab.LogLine, bucket int) bool {
	if ofNodes.MatchString(l.Text) {
		return l.Level != "info"
	}
	instance, attribute := fmt.Sprintf("%s:%d", resource, bucket), fmt.Sprintf("clusterip-%s-%d[", address, bucket)
	if bucket == noBucket {
		instance, attribute = resource+":", fmt.Sprintf("clusterip-%s-", address)
	}
	switch l.Daemon {
	case "pacemaker-execd":
		return strings.Contains(l.Text, instance+"_") && strings.Contains(l.Text, "output")
	case "pacemaker-controld":
		return strings.Contains(l.Text, "Result of ") &&
			(strings.Contains(l.Text, instance+" ") || bucket == noBucket && strings.Contains(l.Text, instance))
	case "pacemaker-attrd":
		return strings.Contains(l.Text, "Setting "+attribute)
	}
	return false
}
