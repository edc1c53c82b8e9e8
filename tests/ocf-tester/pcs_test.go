//go:build system

package ocftester

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// createClone are the commands of the README. They add to the file cib.
const createClone = "pcs -f cib resource create web-ip ocf:custom:clusterip ip=192.168.10.3 --disabled; " +
	"pcs -f cib resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true; pcs -f cib resource enable web-ip"

// newCIB makes an empty configuration, as the file cib in a folder that shell lines begin in.
func newCIB(t *testing.T, n *node) (cd string) {
	t.Helper()
	cd = "cd " + t.TempDir() + "; "
	// Without a fencing device crm_verify refuses any configuration. Pacemaker 3.0.2 and later warn of the old name if it is alone, and
	// earlier ones have no other.
	n.shell(t, cd+"cibadmin --empty >cib; pcs -f cib property set fencing-enabled=false stonith-enabled=false --force")
	return cd
}

// TestPcsCreatesTheClone: the parameters, the clone's options and the monitors of the meta-data arrive in a valid CIB.
func TestPcsCreatesTheClone(t *testing.T) {
	n := newNode(t)
	cd := newCIB(t, n)
	n.shell(t, cd+createClone)
	n.shell(t, cd+"crm_verify --xml-file cib")

	type nvpair struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	var cib struct {
		Clone struct {
			Primitive struct {
				ID         string   `xml:"id,attr"`
				Class      string   `xml:"class,attr"`
				Provider   string   `xml:"provider,attr"`
				Type       string   `xml:"type,attr"`
				Attributes []nvpair `xml:"instance_attributes>nvpair"`
				Ops        []struct {
					Name       string   `xml:"name,attr"`
					Interval   string   `xml:"interval,attr"`
					Timeout    string   `xml:"timeout,attr"`
					Attributes []nvpair `xml:"instance_attributes>nvpair"`
				} `xml:"operations>op"`
			} `xml:"primitive"`
			Meta []nvpair `xml:"meta_attributes>nvpair"`
		} `xml:"configuration>resources>clone"`
	}
	if err := xml.Unmarshal([]byte(n.shell(t, cd+"cat cib")), &cib); err != nil {
		t.Fatal(err)
	}
	p := cib.Clone.Primitive
	if name := p.Class + ":" + p.Provider + ":" + p.Type; p.ID != "web-ip" || name != "ocf:custom:clusterip" {
		t.Errorf("the resource is %s of %s", p.ID, name)
	}
	if diff := cmp.Diff([]nvpair{{"ip", address}}, p.Attributes); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	wantMeta := []nvpair{{"clone-max", "8"}, {"clone-node-max", "8"}, {"globally-unique", "true"}}
	if diff := cmp.Diff(wantMeta, cib.Clone.Meta); diff != "" {
		t.Errorf("clone options (-want +got):\n%s", diff)
	}

	// Pacemaker distinguishes monitors by their interval: two with the same one would be refused or lost.
	levels := map[string]string{} // by interval
	for _, op := range p.Ops {
		if op.Timeout == "" {
			t.Errorf("%s every %s has no timeout", op.Name, op.Interval)
		}
		if op.Name != "monitor" {
			continue
		}
		level := "0"
		for _, a := range op.Attributes {
			if a.Name == "OCF_CHECK_LEVEL" {
				level = a.Value
			}
		}
		if have, twice := levels[op.Interval]; twice {
			t.Errorf("monitors of level %s and %s have the same interval %s", have, level, op.Interval)
		}
		levels[op.Interval] = level
	}
	if len(levels) != 2 || levels["10s"] != "0" {
		t.Errorf("check levels by the monitors' intervals are %v, want level 0 every 10s, and level 10", levels)
	}
	for interval, level := range levels {
		if interval != "10s" && level != "10" {
			t.Errorf("the monitor every %s has level %s, want 10", interval, level)
		}
	}
}

// TestPcsRefusesBadValues: pcs takes from the meta-data what exists and what is required, and asks validate-all for the rest.
func TestPcsRefusesBadValues(t *testing.T) {
	n := newNode(t)
	create := "pcs -f cib resource create web-ip ocf:custom:clusterip "
	for _, tt := range []struct {
		name, command string
		names         []string // what the message must name
	}{
		{"no address", create + "nic=eth0", []string{"'ip'"}},
		{"an unknown parameter", create + "ip=192.168.10.3 netmask=24", []string{"'netmask'"}},
		{"the same address twice", createClone + "; pcs -f cib resource create other ocf:custom:clusterip ip=192.168.10.3", []string{"'ip'"}},
		{"a value that is no choice", create + "ip=192.168.10.3 mac_mode=broadcast --agent-validation", []string{"mac_mode"}},
		{
			"two such values", create + "ip=192.168.10.3 mac_mode=broadcast hashmode=random --agent-validation",
			[]string{"mac_mode", "hashmode"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cd := newCIB(t, n)
			out := n.shell(t, "exec 2>&1; "+cd+"if "+tt.command+"; then echo accepted; fi")
			if strings.Contains(out, "accepted") {
				t.Error("it was accepted")
			}
			for _, name := range tt.names {
				if !strings.Contains(out, name) {
					t.Errorf("%s is not named: %s", name, out)
				}
			}
		})
	}
	t.Run("and accepts good ones", func(t *testing.T) {
		n.shell(t, newCIB(t, n)+create+"ip=192.168.10.3 mac_mode=igmp hashmode=sourceip-sourceport --agent-validation")
	})
}

// TestDescriptions: an admin finds the agent, and every parameter with its default in both tools.
func TestDescriptions(t *testing.T) {
	n := newNode(t)
	m := n.metaData(t)
	if list := n.shell(t, "crm_resource --list-agents ocf:custom"); list != "clusterip\n" {
		t.Errorf("crm_resource finds %q, want clusterip", list)
	}
	for _, command := range []string{"pcs resource describe ocf:custom:clusterip", "crm_resource --show-metadata ocf:custom:clusterip"} {
		t.Run(command, func(t *testing.T) {
			text := strings.Join(strings.Fields(n.shell(t, command)), " ") // pcs breaks lines
			for _, p := range m.Parameters {
				if !strings.Contains(text, p.Name) || !strings.Contains(text, p.Content.Default) {
					t.Errorf("%s with default %q is not in:\n%s", p.Name, p.Content.Default, text)
				}
				if long := strings.Join(strings.Fields(p.Longdesc), " "); !strings.Contains(text, long) {
					t.Errorf("%s is not described as %q", p.Name, long)
				}
			}
		})
	}
}
