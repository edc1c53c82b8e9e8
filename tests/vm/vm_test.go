package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guestTimeout bounds a guest's life. Emulated, everything takes some twenty times as long; and some machines are slow beside.
const guestTimeout = 40 * time.Minute

// guestTests are those of package netns that run on the old kernel, for each guest: each thing that the agent asks of a kernel, once; and
// what only an old kernel can show (build tag guest).
var guestTests = map[string][]string{
	"the data path, wounds and drains": {
		"^TestKernelVectors$",
		"^TestEveryFlowIsAnsweredOnceByItsOwner$/^dual.stack$/^.*$/^sourceip-sourceport-destport$",
		"^TestServices$/^sourceip-sourceport$",
		"^TestAFragmentedDatagramIsAnsweredOnce$/^sourceip-sourceport$",
		"^TestEveryWoundOfADualStackResource$/^multicast$",
		"^TestNeighbourDiscoveryTellsTheClusterMACFromTheNICsOwn$",
		"^TestTheAddressIsNoSourceOfTheNodesOwnConnections$",
		"^TestICMPErrorsAreNotForwardedWithoutTheAddress$",
		"^TestTogetherWithTheTarget$",
		"^TestTargetBackend$",
		"^TestEveryWoundOfTheTargetBackend$",
		"^TestTargetLaidByHandIsLeftAlone$",
		"^TestMatchBackendWithoutNFTables$",
		"^TestEveryWoundOfTheMatchBackend$/^iptables-legacy$",
		"^TestMovesBreakNoConnection$/^IPv4,_multicast$",
		"^TestDrainThatIsTooShort$",
	},
	"the match, kills and choices": {
		"^TestMatchBackend$/^iptables-legacy$/^multicast$",
		"^TestStopAfterTheMatchBackendsRulesWereDeleted$",
		"^TestKilledOnIPTables$",
		"^TestAutoTakesWhatThereIs$",
	},
}

// modules are what the tests' networks and the agent need of a kernel that has next to nothing built in.
var modules = []string{
	"veth", "bridge", "nf_tables", "nft_hash", "nft_ct", "nft_limit", "nft_counter", "nf_conntrack_netlink", "crc32c_generic", // for conntrack's SCTP
	"nft_compat", "iptable_filter", "iptable_mangle", "ipt_CLUSTERIP", "xt_cluster", "xt_comment", "xt_mark", "xt_pkttype",
	"arptable_filter", "arpt_mangle",
}

// programs are those of the machine that the tests and the agent call.
var programs = []string{
	"ip", "bridge", "nft", "iptables-legacy", "iptables-legacy-restore", "iptables-nft", "iptables-nft-restore", "arptables-legacy",
	"strace", "unshare", "mount", "sh", "cat", "mv",
}

// extensions are iptables' own libraries that know the modules' options.
var extensions = []string{
	"libipt_CLUSTERIP", "libxt_cluster", "libxt_comment", "libxt_mark", "libxt_MARK", "libxt_pkttype", "libxt_standard", "libarpt_mangle",
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOldKernel runs kernel tests on Debian 12's kernel, in guests side by side.
func TestOldKernel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	cache, err := os.UserCacheDir()
	check(t, err)
	kernels := filepath.Join(cache, "ocf-clusterip", "kernels")
	check(t, os.MkdirAll(kernels, 0o755))
	k, err := FetchKernel(ctx, kernels)
	check(t, err)
	t.Logf("Linux %s", k.Version)

	scratch := t.TempDir()
	build := map[string][]string{
		"init":          {"build", "-o", filepath.Join(scratch, "init"), "./tests/vm/init"},
		"ocf-clusterip": {"build", "-o", filepath.Join(scratch, "ocf-clusterip"), "./cmd/ocf-clusterip"},
		"netns.test":    {"test", "-c", "-tags", "guest", "-o", filepath.Join(scratch, "netns.test"), "./tests/netns"},
	}
	for _, arguments := range build {
		cmd := exec.CommandContext(ctx, "go", arguments...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
	for guest, tests := range guestTests {
		t.Run(guest, func(t *testing.T) {
			t.Parallel()
			runGuest(t, k, scratch, tests)
		})
	}
}

// runGuest boots a guest that runs tests, and reports what became of each.
func runGuest(t *testing.T, k Kernel, built string, tests []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	image := filepath.Join(t.TempDir(), "initramfs")
	check(t, makeInitramfs(ctx, image, k, built, tests))
	var said transcript
	status, err := Boot(ctx, k, image, said.add)
	t.Log(said.failures())
	if err != nil || status != 0 {
		t.Fatalf("the guest's tests: status %d, %v", status, err)
	}
	for _, pattern := range tests {
		name, _, _ := strings.Cut(strings.Trim(pattern, "^$"), "$")
		duration, passed := said.passed[name]
		if !passed {
			t.Errorf("%s has not passed in the guest", name)
			continue
		}
		t.Logf("%s: %s", name, duration)
	}
}

func makeInitramfs(ctx context.Context, to string, k Kernel, built string, tests []string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := NewInitramfs(f)
	if err != nil {
		return err
	}
	for _, name := range modules {
		if err := a.Module(k, name); err != nil {
			return err
		}
	}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := a.Program(ctx, path); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, from := range map[string]string{"/init": "init", "/usr/sbin/ocf-clusterip": "ocf-clusterip", "/test/netns.test": "netns.test"} {
		if err := a.File(name, filepath.Join(built, from)); err != nil {
			return err
		}
	}
	for _, extension := range extensions {
		if err := a.Program(ctx, "/usr/lib/x86_64-linux-gnu/xtables/"+extension+".so"); err != nil {
			return err
		}
	}
	// What update-alternatives(1) keeps on Debian; which one is chosen, each test says.
	if err := a.link("/usr/sbin/iptables", "/etc/alternatives/iptables"); err != nil {
		return err
	}
	if err := a.link("/etc/alternatives/iptables", "/usr/sbin/iptables-nft"); err != nil {
		return err
	}
	const vectors = "internal/clusterip/testdata/kernel-hash-vectors.tsv"
	if err := a.File("/"+vectors, filepath.Join("../..", vectors)); err != nil {
		return err
	}
	command := []string{"/test/netns.test", "-test.v", "-test.run", strings.Join(tests, "|"), "-test.timeout", guestTimeout.String()}
	if err := a.Text("/command", strings.Join(command, "\n")); err != nil {
		return err
	}
	for _, name := range []string{"/usr/sbin/attrd_updater", "/usr/sbin/cibadmin"} { // the tests put their own in their place
		if err := a.Text(name, ""); err != nil {
			return err
		}
	}
	if err := a.Text("/test/package/README", "the tests' working directory\n"); err != nil {
		return err
	}
	return a.Close()
}
