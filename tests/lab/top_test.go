//go:build system

package lab

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/internal/operator"
	"ocf-clusterip/tests/tty"
)

// picturesTo is a folder to which what top shows is written, as text and as a picture: `make update-top-picture`.
var picturesTo = flag.String("pictures", "", "write what top shows to this `folder`")

// topRow is a bucket in a frame of top.
var topRow = regexp.MustCompile(`(?m)^ *(\d+)  (\S+) +(\S+) +(\S+) +(\S+) +(\S+)  +(\S+(?: \S+)?)`)

// topMove is a move in a frame: the bucket, and the new owner.
var topMove = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d ` + resource + ` bucket (\d+): \S+ -> (\S+)$`)

// shown are the buckets in a frame: the owner, the state, what the node does for it, its open connections.
func shown(frame string) []string {
	var rows []string
	for _, row := range topRow.FindAllStringSubmatch(frame, -1) {
		rows = append(rows, fmt.Sprintf("%s: %s %s here %s open %s", row[1], row[2], row[3], row[4], row[5]))
	}
	return rows
}

// asStatus are the rows that top has to show, from `status --json` of the node. Top does not ask for drains elsewhere.
func asStatus(node string, status operator.ResourceStatus) []string {
	var rows []string
	for _, b := range status.Buckets {
		state, here, open := b.State, "-", "-"
		if slices.Contains(b.Nodes, node) {
			here = b.State
		} else if state == operator.Adopting {
			state = operator.Owned
		}
		for _, drain := range b.Drains {
			if drain.Node == node && drain.Connections != nil {
				state, here, open = b.State, operator.Draining, fmt.Sprint(*drain.Connections)
			}
		}
		rows = append(rows, fmt.Sprintf("%d: %s %s here %s open %s", b.Bucket, strings.Join(b.Nodes, ","), state, here, open))
	}
	return rows
}

// top runs top on a terminal of a host.
func (s *scenario) top(h *Host, width, height int) *tty.Terminal {
	s.t.Helper()
	terminal, err := tty.New(width, height)
	check(s.t, err)
	s.t.Cleanup(func() { check(s.t, terminal.Close()) })
	argv, err := h.EnterCommand("ocf-clusterip", "top")
	check(s.t, err)
	command := exec.CommandContext(s.t.Context(), argv[0], argv[1:]...)
	command.Env = append([]string{"TERM=xterm-256color"}, environment...)
	check(s.t, terminal.Start(command, func(start func() error) error { return start() }))
	return terminal
}

// await waits until something is so of a frame.
func (s *scenario) await(terminal *tty.Terminal, is func(frame string) error) {
	s.t.Helper()
	var err error
	for end := time.Now().Add(stepTimeout); time.Now().Before(end); time.Sleep(pollInterval) {
		if err = is(terminal.Text()); err == nil {
			return
		}
	}
	s.t.Errorf("%v\n%s", err, terminal.Text())
}

// agreesWithTop expects that top on a host comes to show what status prints.
func (s *scenario) agreesWithTop(h *Host, terminal *tty.Terminal) {
	s.t.Helper()
	s.await(terminal, func(frame string) error {
		got, want := shown(frame), asStatus(h.Name, s.status(h, shared))
		if !slices.Equal(got, want) {
			return fmt.Errorf("top on %s shows %q, and status %q", h.Name, got, want)
		}
		return nil
	})
}

// Top shows what status prints, while nothing happens, while buckets move, and of a fault, with the command that repairs it.
func TestTopInACluster(t *testing.T) {
	t.Parallel()
	d := playDraining(t, Options{StayOff: true}, 600)
	tops := map[*Host]*tty.Terminal{}
	for _, h := range d.Hosts {
		tops[h] = d.top(h, 96, 24)
	}
	for h, terminal := range tops {
		d.agreesWithTop(h, terminal)
	}

	d.change("node3 in standby", func() { d.pcs("node", "standby", "node3") }, "node1", "node2")
	for h, terminal := range tops {
		d.agreesWithTop(h, terminal)
	}
	status, err := d.Status(t.Context())
	check(t, err)
	after := status.Placement(resource)
	for h, terminal := range tops {
		moves := topMove.FindAllStringSubmatch(terminal.Text(), -1)
		if len(moves) == 0 {
			t.Errorf("top on %s shows no moves:\n%s", h.Name, terminal.Text())
		}
		last := map[string]string{}
		for _, move := range moves {
			last[move[1]] = move[2]
		}
		for bucket, to := range last {
			if number, _ := strconv.Atoi(bucket); after[number] != to {
				t.Errorf("top on %s shows that bucket %s has moved to %s, and it is on %s", h.Name, bucket, to, after[number])
			}
		}
	}
	d.pcs("property", "set", "maintenance-mode=true")
	check(t, d.WaitIdle(t.Context()))
	run(t, d.Hosts[1], "ip", "address", "delete", shared.String()+"/32", "dev", "eth0")
	d.await(tops[d.Hosts[1]], func(frame string) error {
		if !strings.Contains(frame, "ocf-clusterip top: broken") || !strings.Contains(frame, "address 192.168.10.3/32 is missing on eth0") ||
			!strings.Contains(frame, "$ crm_resource --force-start -r "+resource+":") {
			return fmt.Errorf("top does not show the missing address and the command that repairs it")
		}
		return nil
	})
	d.picture(tops[d.Hosts[1]])
	command, _ := has(d.status(d.Hosts[1], shared), operator.Broken, "is missing")
	run(t, d.Hosts[1], strings.Fields(command)...)
	d.pcs("property", "set", "maintenance-mode=false")
	check(t, d.WaitIdle(t.Context()))
	for h, terminal := range tops {
		d.await(terminal, func(frame string) error {
			if !strings.Contains(frame, "ocf-clusterip top: healthy") {
				return fmt.Errorf("top on %s does not show that all is healthy", h.Name)
			}
			return nil
		})
		check(t, terminal.Type("q"))
		check(t, <-terminal.Ended())
	}
	d.finish()
}

// picture writes what a terminal shows to the folder that is given.
func (s *scenario) picture(terminal *tty.Terminal) {
	s.t.Helper()
	if *picturesTo == "" {
		return
	}
	check(s.t, os.WriteFile(filepath.Join(*picturesTo, "top.txt"), []byte(terminal.Text()+"\n"), 0o644))
	file, err := os.Create(filepath.Join(*picturesTo, "top.png"))
	check(s.t, err)
	check(s.t, terminal.WritePNG(file))
	check(s.t, file.Close())
}
