//go:build system

package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/lan"
)

// attributes stands in for pacemaker-attrd and the CIB: a folder with a file for each attribute of each node, a copy of the status, and
// the nodes' programs. It makes hand-overs fast enough to be killed at each of their system calls. (The real ones are in tests/lab.)
type attributes struct {
	folder string
	nodes  []string
}

// Pacemaker's programs that the agent calls for hand-overs.
const (
	attrdUpdater = "/usr/sbin/attrd_updater"
	cibadmin     = "/usr/sbin/cibadmin"
)

// attrdUpdaterScript does what attrd_updater does with the options that the agent gives it.
const attrdUpdaterScript = `#!/bin/sh
cd FOLDER || exit 1
name= node=NODE update= query= all=
while [ $# -gt 0 ]; do
	case $1 in
	--name) name=$2; shift ;;
	--node) node=$2; shift ;;
	--update) update=$2; shift ;;
	--query) query=yes ;;
	-A) all=${OCF_RESKEY_CRM_meta_on_node:-yes} ;; # as Pacemaker 2.1.5 has it
	esac
	shift
done
if [ ! "$query" ]; then
	echo "$update" >"$$.new" && exec mv "$$.new" "$name@$node"
fi
status=78
for file in "$name@"*; do
	host=${file#*@}
	if [ -e "$file" ] && [ "$all" = yes -o "$host" = "$node" ]; then
		value=
		read -r value <"$file"
		echo "name=\"$name\" host=\"$host\" value=\"$value\""
		status=0
	fi
done
exit $status
`

const cibadminScript = "#!/bin/sh\nexec cat FOLDER/status\n"

// newAttributes makes the agents' nodes members of such a cluster.
func newAttributes(t *testing.T, agents ...*agent) attributes {
	t.Helper()
	a := attributes{folder: t.TempDir()}
	for _, agent := range agents {
		for name, text := range map[string]string{attrdUpdater: attrdUpdaterScript, cibadmin: cibadminScript} {
			program := a.program(agent.Host, name)
			check(t, os.MkdirAll(filepath.Dir(program), 0o755))
			a.write(t, agent.Host, name, text)
			check(t, agent.Host.Mount(program, name))
		}
		a.nodes = append(a.nodes, agent.Host.Name)
	}
	a.status(t, nil)
	return a
}

// program is the path of a node's replacement of a program.
func (a attributes) program(node *lan.Host, name string) string {
	return filepath.Join(a.folder, node.Name, filepath.Base(name))
}

// write writes a node's replacement of a program.
func (a attributes) write(t *testing.T, node *lan.Host, name, text string) {
	t.Helper()
	text = strings.NewReplacer("FOLDER", a.folder, "NODE", node.Name).Replace(text)
	check(t, os.WriteFile(a.program(node, name), []byte(text), 0o755))
}

// delay makes a node's updates of attributes known only after a time.
func (a attributes) delay(t *testing.T, node *lan.Host, by time.Duration) {
	t.Helper()
	const atOnce = `exec mv "$$.new" "$name@$node"`
	late := fmt.Sprintf(`{ (sleep %.0f; mv "$$.new" "$name@$node") >/dev/null 2>&1 & exit 0; }`, by.Seconds())
	a.write(t, node, attrdUpdater, strings.Replace(attrdUpdaterScript, atOnce, late, 1))
}

// leave removes a node's replacements: it is a member of no cluster.
func (a attributes) leave(t *testing.T, node *lan.Host) {
	t.Helper()
	check(t, errors.Join(node.Unmount(attrdUpdater), node.Unmount(cibadmin)))
}

// What a node's node_state in the CIB contains, by the state of the node.
const (
	isMember = `in_ccm="1795737861" crmd="1795737862" expected="member"><lrm/>`
	isLost   = `in_ccm="0" crmd="0" expected="member"><lrm/>` // crashed, or cut off
	isFenced = `in_ccm="0" crmd="0" join="down" expected="down">`
	hasLeft  = `in_ccm="0" crmd="0" expected="down"><lrm/>`
)

// status writes the nodes' states to the CIB: all are members but those that are given.
func (a attributes) status(t *testing.T, gone map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("<status>\n")
	for _, name := range a.nodes {
		fmt.Fprintf(&b, "<node_state uname=%q %s</node_state>\n", name, cmp.Or(gone[name], isMember))
	}
	b.WriteString("</status>\n")
	check(t, os.WriteFile(filepath.Join(a.folder, "status"), []byte(b.String()), 0o644))
}

// lose takes a node out of the cluster, and its attributes with it.
func (a attributes) lose(t *testing.T, node *lan.Host, how string) {
	t.Helper()
	a.clear(t, node)
	a.status(t, map[string]string{node.Name: how})
}

// clear removes a node's attributes, as its crash does, or the end of its Pacemaker.
func (a attributes) clear(t *testing.T, node *lan.Host) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.folder, "*@"+node.Name))
	check(t, err)
	for _, file := range files {
		check(t, os.Remove(file))
	}
}

// announced returns a node's own announcement for a bucket, "" if there is none.
func (a attributes) announced(t *testing.T, node string, bucket int) string {
	t.Helper()
	return a.value(t, fmt.Sprintf("clusterip-%s-%d@%s", shared, bucket, node))
}

// relayed returns the announcements about other nodes that a node stores for a bucket.
func (a attributes) relayed(t *testing.T, node string, bucket int) string {
	t.Helper()
	return a.value(t, fmt.Sprintf("clusterip-%s-%d-relayed@%s", shared, bucket, node))
}

func (a attributes) value(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.folder, file))
	if !os.IsNotExist(err) {
		check(t, err)
	}
	return strings.TrimSpace(string(text))
}

func (a attributes) set(t *testing.T, name, node, value string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(a.folder, name+"@"+node), []byte(value), 0o644))
}
