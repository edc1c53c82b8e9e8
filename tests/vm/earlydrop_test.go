//go:build system

package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The BPF program, and how it is attached, differ the most between kernels. So the tests of that package run in a small guest of their own,
// half a minute, whatever other guest is chosen.
func TestEarlyDrop(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	k := chosenKernel(ctx, t)
	scratch := t.TempDir()
	compile(ctx, t, "build", "-o", filepath.Join(scratch, "init"), "./tests/vm/init")
	compile(ctx, t, "test", "-c", "-tags", "system", "-o", filepath.Join(scratch, "earlydrop.test"), "./internal/kernel/earlydrop")
	image := filepath.Join(scratch, "initramfs")
	check(t, makeSmallInitramfs(ctx, image, k, scratch))
	var failures []string
	begin := time.Now()
	status, err := Boot(ctx, k, image, func(line string) {
		t.Log(line)
		if strings.Contains(line, "--- FAIL") {
			failures = append(failures, line)
		}
	})
	if err != nil || status != 0 {
		t.Fatalf("the tests in the guest: status %d, %v\n%s", status, err, strings.Join(failures, "\n"))
	}
	progress(t, "%5.0f s early drop: passed on Linux %s", time.Since(begin).Seconds(), k.Version)
}

func makeSmallInitramfs(ctx context.Context, to string, k Kernel, built string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := NewInitramfs(f)
	if err != nil {
		return err
	}
	for _, name := range []string{
		"veth", "tun", "macvlan", "af_packet", "sch_ingress", "cls_bpf", "cls_u32", "nf_tables", "nft_hash", "nft_ct", "nft_limit", "nft_counter",
	} {
		if err := a.Module(ctx, k, name); err != nil {
			return err
		}
	}
	tc, err := exec.LookPath("tc")
	if err != nil {
		return err
	}
	if err := a.Program(ctx, tc); err != nil {
		return err
	}
	const objects = "../../internal/kernel/earlydrop"
	for name, from := range map[string]string{
		"/init": filepath.Join(built, "init"), "/test/earlydrop.test": filepath.Join(built, "earlydrop.test"),
		"/test/package/earlydrop_bpfel.o": filepath.Join(objects, "earlydrop_bpfel.o"),
		"/test/package/earlydrop_bpfeb.o": filepath.Join(objects, "earlydrop_bpfeb.o"),
	} {
		if err := a.File(name, from); err != nil {
			return err
		}
	}
	// Emulated, there is no time for what strace does, nor for all packets.
	command := []string{"/test/earlydrop.test", "-test.v", "-test.skip", "Killed|WithoutBPF", "-packets", "10000"}
	if err := a.Text("/command", strings.Join(command, "\n")); err != nil {
		return err
	}
	return a.Close()
}
