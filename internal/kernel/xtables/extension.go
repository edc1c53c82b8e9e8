package xtables

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// An Extension is a match or target of iptables.
type Extension struct {
	Kind   Kind
	Name   string
	Option string // the kernel's option, as an admin reads it
}

// Kind is the option of ip_tables' sockets that asks for such an extension (include/uapi/linux/netfilter_ipv4/ip_tables.h).
type Kind uintptr

// The kinds of extensions.
const (
	Match  Kind = 64 + 2 // IPT_SO_GET_REVISION_MATCH
	Target Kind = 64 + 3 // IPT_SO_GET_REVISION_TARGET
)

// revision is struct xt_get_revision (include/uapi/linux/netfilter/x_tables.h).
type revision struct {
	name     [29]byte // XT_EXTENSION_MAXNAMELEN
	revision uint8
}

// IsInKernel asks the kernel for revision 0 of the extension, as iptables itself does (compatible_revision in libxtables/xtables.c); the
// kernel loads the module. It answers with ENOENT where it has no such extension in any revision (xt_find_revision in
// net/netfilter/x_tables.c), and with ENOPROTOOPT where ip_tables is not loaded.
func (e Extension) IsInKernel() (clusterip.Answer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return clusterip.Unknown, fmt.Errorf("ask the kernel for the iptables extension %s: %w", e.Name, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	var asked revision
	copy(asked.name[:], e.Name)
	length := uint32(unsafe.Sizeof(asked))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(e.Kind),
		uintptr(unsafe.Pointer(&asked)), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // the kernel's interface
	runtime.KeepAlive(&asked)
	switch {
	case errno == 0:
		return clusterip.Yes, nil
	case errors.Is(errno, unix.ENOENT):
		return clusterip.No, ocf.Errorf(ocf.ErrInstalled, "this kernel has no iptables extension %s (%s)", e.Name, e.Option)
	default:
		return clusterip.Unknown, fmt.Errorf("ask the kernel for the iptables extension %s: %w", e.Name, errno)
	}
}

// Explain recognises the error of iptables for an extension that the kernel does not have.
func (e Extension) Explain(err error) error {
	failed := (*iptables.Error)(nil)
	if errors.As(err, &failed) && (strings.Contains(failed.Error(), "No chain/target/match by that name") ||
		strings.Contains(failed.Error(), "missing kernel module")) {
		return ocf.Errorf(ocf.ErrInstalled, "%w: this kernel has no iptables extension %s (%s)", err, e.Name, e.Option)
	}
	return err
}
