//go:build system

package ocftester

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// metaData is what callers read of it.
type metaData struct {
	Name       string      `xml:"name,attr"`
	Version    string      `xml:"version"` // of the OCF RA API
	Longdesc   string      `xml:"longdesc"`
	Shortdesc  string      `xml:"shortdesc"`
	Parameters []parameter `xml:"parameters>parameter"`
	Actions    []action    `xml:"actions>action"`
}

type parameter struct {
	Name        string `xml:"name,attr"`
	Required    string `xml:"required,attr"`
	UniqueGroup string `xml:"unique-group,attr"`
	Reloadable  string `xml:"reloadable,attr"`
	Longdesc    string `xml:"longdesc"`
	Shortdesc   string `xml:"shortdesc"`
	Content     struct {
		Type    string `xml:"type,attr"`
		Default string `xml:"default,attr"`
		Options []struct {
			Value string `xml:"value,attr"`
		} `xml:"option"`
	} `xml:"content"`
}

type action struct {
	Name     string `xml:"name,attr"`
	Timeout  string `xml:"timeout,attr"`
	Interval string `xml:"interval,attr"`
	Depth    string `xml:"depth,attr"`
}

// advertised is the public interface: a change here is one for the changelog.
var advertised = []struct {
	name, kind, deflt string
	options           []string
	required          bool
	reloadable        bool // without disturbing a running bucket
}{
	{name: "ip", kind: "string", required: true},
	{name: "cidr_netmask", kind: "string"}, // one number or two
	{name: "nic", kind: "string"},
	{name: "backend", kind: "select", deflt: "auto", options: []string{"auto", "nftables", "xt_cluster", "clusterip"}},
	{name: "mac_mode", kind: "select", deflt: "multicast", options: []string{"multicast", "igmp", "unicast"}},
	{name: "mac", kind: "string"},
	{
		name:    "hashmode",
		kind:    "select",
		deflt:   "sourceip",
		options: []string{"sourceip", "sourceip-sourceport", "sourceip-sourceport-destport"},
	},
	{name: "hash_seed", kind: "string"}, // decimal or 0x…
	{name: "hash_compat", kind: "select", deflt: "xt_cluster", options: []string{"xt_cluster", "clusterip"}},
	{name: "hash_prefix4", kind: "integer", deflt: "32"},
	{name: "hash_prefix6", kind: "integer", deflt: "128"},
	{name: "services", kind: "string"},
	{name: "drain", kind: "integer", deflt: "0", reloadable: true},
	{name: "linger", kind: "integer", deflt: "5", reloadable: true},
	{name: "early_drop", kind: "select", deflt: "auto", options: []string{"auto", "off", "xdp", "tc"}, reloadable: true},
	{name: "remember", kind: "integer", deflt: "65536", reloadable: true},
	{name: "tell_rate", kind: "integer", deflt: "10000", reloadable: true},
	{name: "check_link", kind: "boolean", deflt: "true", reloadable: true},
	{name: "arp_count", kind: "integer", deflt: "3", reloadable: true},
	{name: "arp_interval", kind: "integer", deflt: "20", reloadable: true},
}

func (n *node) metaData(t *testing.T) metaData {
	t.Helper()
	var m metaData
	if err := xml.Unmarshal([]byte(n.call(t, nil, "meta-data").Stdout), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMetaDataIsOnlyXML: for each user and each environment, stdout holds the same document and stderr nothing.
func TestMetaDataIsOnlyXML(t *testing.T) {
	n := newNode(t)
	bare := n.run(t, vars{}, agent, "meta-data")
	for _, tt := range []struct {
		name string
		vars vars
		argv []string
	}{
		{"with nothing in the environment", vars{}, []string{agent, "meta-data"}},
		{"by the program's own name", vars{}, []string{program, "meta-data"}},
		{"as Pacemaker asks", n.pacemaker(), []string{agent, "meta-data"}},
		// crm_resource sets this for its own output, and the agent inherits it: pcs would break if it changed the format.
		{"as pcs and crm_resource ask", n.pacemaker().With(vars{"OCF_OUTPUT_FORMAT": "text"}), []string{agent, "meta-data"}},
		{"as XML", vars{"OCF_OUTPUT_FORMAT": "xml"}, []string{agent, "meta-data"}},
		{"in a format that does not exist", vars{"OCF_OUTPUT_FORMAT": "klingon"}, []string{agent, "meta-data"}},
		{"when ocf-tester hides all programs", vars{"OCF_TESTER_FAIL_HAVE_BINARY": "1"}, []string{agent, "meta-data"}},
		{"with parameters that are wrong", params("ip", "x\n", "nic", "\xff", "CRM_meta_clone_max", "-1"), []string{agent, "meta-data"}},
		{"with everything else wrong", vars{
			"HA_RSCTMP": "x", "OCF_CHECK_LEVEL": "x", "OCF_RESOURCE_INSTANCE": "\xff:\n", "OCF_RA_VERSION_MAJOR": "9",
			"OCF_EXIT_REASON_PREFIX": "\n",
		}, []string{agent, "meta-data"}},
		{"by an unprivileged user", vars{"PATH": "/usr/bin"}, asNobody(agent, "meta-data")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := n.run(t, tt.vars, tt.argv...)
			if r.ExitCode != 0 {
				t.Errorf("exit status is %d", r.ExitCode)
			}
			if r.Stderr != "" {
				t.Errorf("stderr is not empty: %q", r.Stderr)
			}
			if diff := cmp.Diff(bare.Stdout, r.Stdout); diff != "" {
				t.Errorf("the document differs (-bare +this):\n%s", diff)
			}
		})
	}
	if !strings.HasPrefix(bare.Stdout, "<?xml ") || !strings.HasSuffix(bare.Stdout, "</resource-agent>\n") {
		t.Errorf("not an XML document and nothing else:\n%s", bare.Stdout)
	}
}

func TestMetaDataIsValid(t *testing.T) {
	n := newNode(t)
	t.Run("for pcs", func(t *testing.T) {
		n.shell(t, agent+" meta-data | xmllint --noout --relaxng /usr/share/pcs/data/ocf-1.1.rng -")
	})
	// ocf-tester wants a DTD. The one of the resource agents does not cover OCF 1.1 (no select, no reload-agent), so the
	// document must bring its own.
	t.Run("for ocf-tester", func(t *testing.T) {
		n.shell(t, "cd /usr/share/resource-agents; "+agent+" meta-data | xmllint --noout --valid -")
	})
}

func TestMetaDataSaysWhatThereIs(t *testing.T) {
	m := newNode(t).metaData(t)
	if m.Name != "clusterip" || m.Version != "1.1" {
		t.Errorf("this is %q for version %q of the API, want clusterip and 1.1", m.Name, m.Version)
	}
	if m.Longdesc == "" || m.Shortdesc == "" {
		t.Error("the agent is not described")
	}

	var names, want []string
	for _, p := range m.Parameters {
		names = append(names, p.Name)
	}
	for _, p := range advertised {
		want = append(want, p.name)
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Fatalf("parameters (-want +got):\n%s", diff)
	}
	for i, want := range advertised {
		got := m.Parameters[i]
		t.Run(want.name, func(t *testing.T) {
			var options []string
			for _, o := range got.Content.Options {
				options = append(options, o.Value)
			}
			if got.Content.Type != want.kind || got.Content.Default != want.deflt || !slices.Equal(options, want.options) {
				t.Errorf("it is a %s with default %q and options %q, want a %s with default %q and options %q",
					got.Content.Type, got.Content.Default, options, want.kind, want.deflt, want.options)
			}
			if (got.Required == "1") != want.required {
				t.Errorf("required is %q, want %t", got.Required, want.required)
			}
			if (got.Reloadable == "1") != want.reloadable {
				t.Errorf("reloadable is %q, want %t", got.Reloadable, want.reloadable)
			}
			if want.required && got.UniqueGroup == "" {
				t.Error("two resources with the same value would not be refused: no unique-group")
			}
			if got.Shortdesc == "" || len(got.Longdesc) <= len(got.Shortdesc) {
				t.Errorf("it is not described: %q, %q", got.Shortdesc, got.Longdesc)
			}
		})
	}

	for _, want := range []action{
		{Name: "start"},
		{Name: "stop"},
		{Name: "monitor", Interval: "10s", Depth: "0"},
		{Name: "monitor", Depth: "10"},
		{Name: "meta-data"},
		{Name: "validate-all"},
		{Name: "reload-agent"},
	} {
		if !slices.ContainsFunc(m.Actions, func(got action) bool {
			return got.Name == want.Name && got.Timeout != "" &&
				(want.Interval == "" || got.Interval == want.Interval) && (want.Depth == "" || got.Depth == want.Depth)
		}) {
			t.Errorf("no action with a timeout is like %+v: %+v", want, m.Actions)
		}
	}
}
