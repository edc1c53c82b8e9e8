package netns

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// attributes stands in for pacemaker-attrd and the CIB: a folder with a file for each attribute of each node, and a copy of the status. It
// makes hand-overs fast enough to be killed at each of their system calls. (The real ones are in tests/lab.)
type attributes struct {
	folder string
	nodes  []string
}

// attrdUpdater does what attrd_updater does with the options that the agent gives it.
const attrdUpdater = `#!/bin/sh
cd FOLDER || exit 1
name= node=$NODE update= query= all=
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
		echo "name=\"$name\" host=\"$host\" value=\"$(cat "$file")\""
		status=0
	fi
done
exit $status
`

const cibAdmin = "#!/bin/sh\nexec cat FOLDER/status\n"

// newAttributes makes the agents members of a cluster, which is only this.
func newAttributes(t *testing.T, agents ...*agent) attributes {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{"attrd_updater": attrdUpdater, "cibadmin": cibAdmin} {
		check(t, os.WriteFile(filepath.Join(folder, name), []byte(strings.ReplaceAll(text, "FOLDER", folder)), 0o755))
	}
	a := attributes{folder: folder}
	for _, agent := range agents {
		agent.wrapper = []string{
			"/usr/bin/unshare", "--mount", "/bin/sh", "-c",
			`for p in attrd_updater cibadmin; do mount --bind "$0/$p" "/usr/sbin/$p" || exit; done; NODE=$1; export NODE; shift; exec "$@"`, folder, agent.host.Name,
		}
		a.nodes = append(a.nodes, agent.host.Name)
	}
	a.status(t, nil)
	return a
}

// How the CIB says that a node has gone.
const (
	hasCrashed = `crmd="offline" expected="member"`
	hasStopped = `crmd="offline" expected="down"`
)

// status makes the CIB say where nodes are: in the cluster, but for those that are gone.
func (a attributes) status(t *testing.T, gone map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("<status>\n")
	for _, name := range a.nodes {
		fmt.Fprintf(&b, "<node_state uname=%q %s><lrm/></node_state>\n", name, cmp.Or(gone[name], `crmd="online" expected="member"`))
	}
	b.WriteString("</status>\n")
	check(t, os.WriteFile(filepath.Join(a.folder, "status"), []byte(b.String()), 0o644))
}

// lose takes a node out of the cluster, and with it what it says.
func (a attributes) lose(t *testing.T, node *Host, how string) {
	t.Helper()
	a.forget(t, node)
	a.status(t, map[string]string{node.Name: how})
}

// forget takes away what a node says, as its crash does or the end of its Pacemaker.
func (a attributes) forget(t *testing.T, node *Host) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.folder, "*@"+node.Name))
	check(t, err)
	for _, file := range files {
		check(t, os.Remove(file))
	}
}

// said returns what a node says of a bucket, "" if nothing.
func (a attributes) said(t *testing.T, node string, bucket int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.folder, fmt.Sprintf("clusterip-%s-%d@%s", shared, bucket, node)))
	if !os.IsNotExist(err) {
		check(t, err)
	}
	return strings.TrimSpace(string(text))
}

func (a attributes) set(t *testing.T, name, node, value string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(a.folder, name+"@"+node), []byte(value), 0o644))
}
