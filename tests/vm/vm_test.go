//go:build system

package vm

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// guestTimeout bounds a guest's life. Emulated, everything takes some twenty times as long; and some machines are slow beside.
const guestTimeout = 40 * time.Minute

var (
	release = flag.String("kernel", "", "whose kernel is booted: a release of Debian; empty: the machine's own")
	only    = flag.String("guest", "", "which guest is booted; empty: all")
)

// backends are those that each release's kernel has. The agent must find the same in the guest, so that no test passes
// because a backend was taken for missing.
func backends() map[string]string {
	return map[string]string{
		"bullseye": "nftables xt_cluster clusterip", // Linux 5.10
		"bookworm": "nftables xt_cluster clusterip", // 6.1
		"trixie":   "nftables xt_cluster",           // 6.12; Linux 6.3 has removed the target
		"sid":      "nftables xt_cluster",
	}
}

// modules are what the tests' networks and the agent need of a kernel that has next to nothing built in.
var modules = []string{
	"veth",
	"bridge",
	"br_netfilter",
	"bonding",
	"8021q",
	"vrf",
	"macvlan",
	"ipvlan",
	"team",
	"nf_tables",
	"nft_hash",
	"nft_ct",
	"nft_limit",
	"nft_counter",
	"nft_dup_netdev",
	"nft_socket",
	"sch_ingress",
	"cls_bpf",
	"nf_conntrack_netlink",
	"inet_diag",
	"tcp_diag",
	"crc32c_generic", // for conntrack's SCTP
	"nft_compat",
	"iptable_filter",
	"iptable_mangle",
	"ipt_CLUSTERIP",
	"xt_cluster",
	"xt_comment",
	"xt_mark",
	"xt_pkttype",
	"arptable_filter",
	"arpt_mangle",
}

// programs are those of the machine that the tests and the agent call.
var programs = []string{
	"ip", "bridge", "nft", "iptables-legacy", "iptables-legacy-restore", "iptables-nft", "iptables-nft-restore", "arptables-legacy",
	"strace", "tc", "unshare", "mount", "sh", "cat", "mv",
}

// extensions are iptables' own libraries that parse the modules' options.
var extensions = []string{
	"libipt_CLUSTERIP", "libxt_cluster", "libxt_comment", "libxt_mark", "libxt_MARK", "libxt_pkttype", "libxt_standard", "libarpt_mangle",
}

// ownRelease is the machine's.
func ownRelease() (string, error) {
	const file = "/etc/os-release"
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(name, "\"\n"), nil
		}
	}
	return "", fmt.Errorf("%s has no VERSION_CODENAME", file)
}

// TestKernel runs kernel tests on the kernel of a release of Debian, in guests side by side.
func TestKernel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	chosen := slices.DeleteFunc(slices.Clone(guests), func(guest string) bool { return *only != "" && guest != *only })
	if len(chosen) == 0 {
		t.Fatalf("there is no guest %q", *only)
	}
	k := chosenKernel(ctx, t)
	progress(t, "Linux %s of Debian %s", k.Version, *release)
	t.Attr("linux", k.Version)

	scratch := t.TempDir()
	compile(ctx, t, "build", "-o", filepath.Join(scratch, "init"), "./tests/vm/init")
	compile(ctx, t, "build", "-o", filepath.Join(scratch, "ocf-clusterip"), "./cmd/ocf-clusterip")
	compile(ctx, t, "test", "-c", "-tags", "guest,system", "-o", filepath.Join(scratch, "kernel.test"), "./tests/kernel")
	for _, guest := range chosen {
		t.Run(guest, func(t *testing.T) {
			t.Parallel()
			runGuest(t, k, scratch, guest)
		})
	}
}

// chosenKernel returns the kernel that the flag names.
func chosenKernel(ctx context.Context, t *testing.T) Kernel {
	t.Helper()
	if *release == "" {
		own, err := ownRelease()
		check(t, err)
		*release = own
	}
	if _, known := backends()[*release]; !known {
		t.Fatalf("there is no kernel %q: choose one of %s", *release, strings.Join(slices.Sorted(maps.Keys(backends())), ", "))
	}
	cache, err := os.UserCacheDir()
	check(t, err)
	k, err := FetchKernel(ctx, filepath.Join(cache, "ocf-clusterip", "kernels"), *release, t.Logf)
	check(t, err)
	return k
}

// compile runs the Go tool for a guest.
func compile(ctx context.Context, t *testing.T, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

// progress is printed while the tests run: tools/testreport prints it, and it is in the log.
func progress(t *testing.T, format string, values ...any) {
	t.Helper()
	t.Attr("progress", fmt.Sprintf(format, values...))
}

// runGuest boots a guest, and reports what became of each test that is marked for it.
func runGuest(t *testing.T, k Kernel, built, guest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	begin := time.Now()
	image := filepath.Join(t.TempDir(), "initramfs")
	check(t, makeInitramfs(ctx, image, k, built, guest))
	output := newTranscript(guest, func(name, verdict, duration string) {
		t.Attr("guest-test", verdict+" "+name)
		progress(t, "%5.0f s %-10s %s %s (%s)", time.Since(begin).Seconds(), guest, verdict, name, duration)
	})
	status, err := Boot(ctx, k, image, output.add)
	t.Log(output.failures())
	if err != nil || status != 0 {
		t.Fatalf("the guest's tests: status %d, %v", status, err)
	}
	if err := output.allPassed(); err != nil {
		t.Error(err)
	}
	t.Attr("backends", output.offered)
	if want := backends()[*release]; output.offered != want {
		t.Errorf("the agent finds the backends %q in this kernel, which has %q", output.offered, want)
	}
	progress(t, "%5.0f s %-10s %d marked tests passed on Linux %s", time.Since(begin).Seconds(), guest, len(output.marked), k.Version)
}

func makeInitramfs(ctx context.Context, to string, k Kernel, built, guest string) error {
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
		if err := a.Module(ctx, k, name); err != nil {
			return err
		}
	}
	for _, name := range programs {
		program, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := a.Program(ctx, program); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, from := range map[string]string{
		"/init": "init", "/usr/sbin/ocf-clusterip": "ocf-clusterip", "/test/kernel.test": "kernel.test",
	} {
		if err := a.File(name, filepath.Join(built, from)); err != nil {
			return err
		}
	}
	for _, extension := range extensions {
		if err := a.Program(ctx, "/usr/lib/x86_64-linux-gnu/xtables/"+extension+".so"); err != nil {
			return err
		}
	}
	// What update-alternatives(1) keeps on Debian; each test chooses one.
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
	command := []string{"/test/kernel.test", "-test.v", "-guest", guest, "-test.timeout", guestTimeout.String()}
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
