package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Folders of Debian that hosts see with something of the lab on top.
const (
	sbin   = "/usr/sbin"
	agents = "/usr/lib/ocf/resource.d"
)

// makeOverlays makes the folders with what exists inside the hosts only: the fence agent, `service`, and the agent.
func (l *Lab) makeOverlays() error {
	links := []struct{ under, name, target string }{
		{sbin, roleFence, l.program},
		{sbin, roleService, l.program},
	}
	if l.options.Agent != "" {
		// A copy: Pacemaker reads the agent's meta-data as hacluster, who may enter no folder of root's.
		agent := filepath.Join(l.folder, "ocf-clusterip")
		if err := copyProgram(l.options.Agent, agent); err != nil {
			return fmt.Errorf("the agent: %w", err)
		}
		links = append(links, []struct{ under, name, target string }{{agents, "custom/clusterip", agent}, {sbin, "ocf-clusterip", agent}}...)
	}
	for _, link := range links {
		path := filepath.Join(l.overlays()[link.under], link.name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(link.target, path)); err != nil {
			return err
		}
	}
	return nil
}

func copyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

// overlays returns the overlay folders, by the folder of the host that each covers.
func (l *Lab) overlays() map[string]string {
	o := map[string]string{sbin: filepath.Join(l.folder, "sbin")}
	if l.options.Agent != "" {
		o[agents] = filepath.Join(l.folder, "agents")
	}
	return o
}

// makeDisk makes what a host finds at its first boot: Corosync's configuration, and the cluster's, so that the
// properties that matter before the first election (fencing, dc-deadtime) are set from the start.
func (l *Lab) makeDisk(ctx context.Context, h *Host) error {
	uid, gid, err := clusterUser(h.root)
	if err != nil {
		return err
	}
	for _, folder := range []string{"etc-corosync/uidgid.d", "var-lib-corosync", "var-lib-pacemaker", "var-log/corosync", "var-log/crmsh"} {
		if err := os.MkdirAll(filepath.Join(h.disk, folder), 0o755); err != nil {
			return err
		}
	}
	for _, folder := range []string{
		"var-lib-pacemaker/cib", "var-lib-pacemaker/pengine", "var-lib-pacemaker/blackbox", "var-lib-pacemaker/cores",
		"var-log/pacemaker", "var-log/pacemaker/bundles",
	} {
		path := filepath.Join(h.disk, folder)
		if err := errors.Join(os.Mkdir(path, 0o770), os.Chmod(path, 0o770), os.Chown(path, uid, gid)); err != nil {
			return err
		}
	}
	cib, err := l.cib(ctx)
	if err != nil {
		return err
	}
	files := map[string]string{
		"hosts":                         l.hostsFile(),
		"etc-corosync/corosync.conf":    l.corosyncConf(),
		"var-lib-pacemaker/cib/cib.xml": cib,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(h.disk, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Chmod(filepath.Join(h.disk, "hosts"), 0o644),
		os.Chown(filepath.Join(h.disk, "var-lib-pacemaker/cib/cib.xml"), uid, gid))
}

func (l *Lab) hostsFile() string {
	var b strings.Builder
	fmt.Fprintln(&b, "127.0.0.1 localhost")
	for i, h := range l.Network.Nodes {
		fmt.Fprintf(&b, "%s %s\n", l.Network.ManagementAddr(i), h.Name)
	}
	return b.String()
}

// corosyncConf is a cluster on the management network alone, so that a test can cut it. Real clusters add a second link. After each
// message the token runs around without a pause seqno_unchanged_const times: by default 30, which is nothing between
// real nodes, but a quarter of a small machine that plays six of them.
func (l *Lab) corosyncConf() string {
	var b strings.Builder
	token := l.options.Token.Milliseconds()
	fmt.Fprintf(&b, `totem {
	version: 2
	cluster_name: lab
	transport: knet
	crypto_cipher: none
	crypto_hash: none
	token: %d
	token_coefficient: 0
	seqno_unchanged_const: 4
	interface {
		linknumber: 0
		knet_ping_interval: %d
		knet_ping_timeout: %d
		knet_pong_count: 1
	}
}
nodelist {
`, token, token/4, token/2)
	for i, h := range l.Network.Nodes {
		fmt.Fprintf(&b, "\tnode {\n\t\tnodeid: %d\n\t\tname: %s\n\t\tring0_addr: %s\n\t}\n", i+1, h.Name, l.Network.ManagementAddr(i))
	}
	b.WriteString("}\nquorum {\n\tprovider: corosync_votequorum\n")
	if len(l.Network.Nodes) == 2 {
		b.WriteString("\ttwo_node: 1\n")
	}
	// Real-time scheduling, as by default: a busy machine must not look like a dead one.
	b.WriteString(`}
system {
	sched_rr: yes
	move_to_root_cgroup: no
}
logging {
	to_syslog: no
	to_stderr: no
	to_logfile: yes
	logfile: /var/log/corosync/corosync.log
	timestamp: hires
}
`)
	return b.String()
}

// dcDeadtime is how long a node waits at its start for others before it elects a coordinator; by default 20 s.
const dcDeadtime = 2 * time.Second

// schema is the newest of the CIB that Pacemaker 2.0.5 supports.
const schema = "pacemaker-3.5"

// cib is the cluster's first configuration: properties and the fencing device.
func (l *Lab) cib(ctx context.Context) (string, error) {
	fencing, err := l.fencingProperty(ctx)
	if err != nil {
		return "", err
	}
	properties := map[string]string{
		"cluster-name":     "lab",
		"dc-deadtime":      fmt.Sprintf("%ds", int(dcDeadtime.Seconds())),
		fencing:            fmt.Sprint(!l.options.NoFencing),
		"no-quorum-policy": "stop",
		"startup-fencing":  "true",
	}
	maps.Copy(properties, l.options.Properties)

	doc := etree.NewDocument()
	cib := element(doc.CreateElement("cib"), "validate-with", schema, "epoch", "1", "num_updates", "0", "admin_epoch", "0")
	configuration := cib.CreateElement("configuration")
	set := element(configuration.CreateElement("crm_config").CreateElement("cluster_property_set"), "id", "cib-bootstrap-options")
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		element(set.CreateElement("nvpair"), "id", "cib-bootstrap-options-"+name, "name", name, "value", properties[name])
	}
	configuration.CreateElement("nodes")
	resources := configuration.CreateElement("resources")
	if !l.options.NoFencing {
		device := element(resources.CreateElement("primitive"), "id", "power", "class", "stonith", "type", roleFence)
		attributes := element(device.CreateElement("instance_attributes"), "id", "power-attributes")
		element(attributes.CreateElement("nvpair"), "id", "power-ip", "name", "ip", "value", l.powerAddress().String())
		element(
			device.CreateElement("operations").CreateElement("op"),
			"id",
			"power-monitor",
			"name",
			"monitor",
			"interval",
			"60s",
			"timeout",
			"20s",
		)
	}
	configuration.CreateElement("constraints")
	cib.CreateElement("status")
	return doc.WriteToString()
}

// element gives an element attributes, from pairs of name and value.
func element(e *etree.Element, attributes ...string) *etree.Element {
	for pair := range slices.Chunk(attributes, 2) {
		e.CreateAttr(pair[0], pair[1])
	}
	return e
}
