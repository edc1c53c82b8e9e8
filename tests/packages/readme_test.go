//go:build system

package packages

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"ocf-clusterip/tests/lab"
)

// A screen is README.md's first one, as far as it is for a cluster.
type screen struct {
	onEach []string // lines for each node
	doctor string   // the command for each node that comes next
	onOne  []string // lines for one node
}

// doctorFirst is how README.md names the command doctor.
var doctorFirst = regexp.MustCompile("Run `(ocf-clusterip doctor [^`]*)` on each node first:")

// firstScreen reads it. Nothing in it is replaced but the architecture, where the machine has another one.
func firstScreen(t *testing.T) screen {
	t.Helper()
	section, err := lab.READMESection("First start")
	if err != nil {
		t.Fatal(err)
	}
	doctor, blocks := doctorFirst.FindStringSubmatch(section), lab.CodeBlocks(section)
	if doctor == nil || len(blocks) == 0 {
		t.Fatalf("README.md: no match for %v, or no code:\n%s", doctorFirst, section)
	}
	text := strings.Join(blocks[0], "\n")
	for _, part := range []string{
		"apt install ./", "_amd64.deb ", "# on each node.", "pcs resource ", "crm_resource --wait ", "ocf-clusterip status ",
	} {
		if !strings.Contains(text, part) {
			t.Fatalf("README.md's first lines have no %q:\n%s", part, text)
		}
	}
	s := screen{doctor: doctor[1]}
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "_amd64.deb ", "_"+architecture(t)+".deb "), "\n") {
		if strings.Contains(line, "# on each node.") {
			s.onEach = append(s.onEach, line)
		} else {
			s.onOne = append(s.onOne, line)
		}
	}
	return s
}

// typed has a host run a line of README.md, which must succeed without a warning.
func (s *site) typed(h *lab.Host, line string) {
	s.t.Helper()
	r, err := h.Type(s.t.Context(), s.folder, line)
	s.check(err)
	output := r.Stdout + r.Stderr
	s.t.Logf("%s# %s\n%s", h.Name, line, output)
	if r.ExitCode != 0 {
		s.t.Fatalf("%s# %s: exit status %d\n%s", h.Name, line, r.ExitCode, output)
	}
	if lab.Complains(r) {
		s.t.Errorf("%s# %s: it complains:\n%s", h.Name, line, output)
	}
}

// doctor has a host run README.md's doctor, which must warn of one thing only: the lab's nodes have but one link.
func (s *site) doctor(h *lab.Host, line string) {
	s.t.Helper()
	r, err := h.Type(s.t.Context(), s.folder, line)
	s.check(err)
	s.t.Logf("%s# %s\n%s", h.Name, line, r.Stdout)
	if r.ExitCode != 1 || !strings.Contains(r.Stdout, " warning  links ") || !strings.HasSuffix(r.Stdout, " checks: 1 warning\n") {
		s.t.Errorf("%s# %s: exit status %d, want 1, and a warning of links only\n%s%s", h.Name, line, r.ExitCode, r.Stdout, r.Stderr)
	}
}

// The lines of README.md's first screen, typed as they stand, make a healthy cluster of three nodes that had no agent before.
func TestFirstScreenIsTyped(t *testing.T) {
	first := firstScreen(t)
	s := newSite(t)
	for _, h := range s.Hosts {
		for _, file := range []string{"/usr/sbin/ocf-clusterip", "/usr/lib/ocf/resource.d/custom"} {
			if _, err := h.Run(t.Context(), "test", "-e", file); err == nil {
				t.Fatalf("%s has %s before the installation", h.Name, file)
			}
		}
		for _, line := range first.onEach {
			s.typed(h, line)
		}
		s.doctor(h, first.doctor)
	}
	s.installed(s.deb, s.Hosts...)
	for _, line := range first.onOne {
		s.typed(s.Hosts[0], line)
	}

	// At once, because a line has waited.
	status, err := s.Status(t.Context())
	s.check(err)
	if err := status.Even(resource, buckets, "node1", "node2", "node3"); err != nil {
		t.Errorf("Pacemaker: %v", err)
	}
	for _, failure := range status.Failures {
		t.Error(failure)
	}
	for _, h := range s.Hosts {
		if out := s.on(h, "ocf-clusterip", "status"); !strings.Contains(out, resource+" "+shared.String()+": healthy\n") {
			t.Errorf("status on %s:\n%s", h.Name, out)
		}
	}
	placement := status.Placement(resource)
	owner := func(client netip.Addr) string { return placement[lab.Bucket(shared, client, buckets)] }
	if err := s.ExactlyOnce(t.Context(), shared, s.Network.Sources(streams), owner); err != nil {
		t.Error(err)
	}
}
