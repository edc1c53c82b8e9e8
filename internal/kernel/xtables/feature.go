package xtables

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// Questions to ip_tables (include/uapi/linux/netfilter_ipv4/ip_tables.h).
const (
	getRevisionMatch  = 64 + 2 // IPT_SO_GET_REVISION_MATCH
	getRevisionTarget = 64 + 3 // IPT_SO_GET_REVISION_TARGET
)

// KnowsMatch asks the kernel for a match of iptables, in revision 0, and has it load the module. The option is the kernel's that
// brings it, for people.
func KnowsMatch(name, option string) (clusterip.Answer, error) {
	return knows(getRevisionMatch, "match "+name, name, option)
}

// KnowsTarget asks likewise for a target.
func KnowsTarget(name, option string) (clusterip.Answer, error) {
	return knows(getRevisionTarget, "target "+name, name, option)
}

// revision is struct xt_get_revision (include/uapi/linux/netfilter/x_tables.h).
type revision struct {
	name     [29]byte // XT_EXTENSION_MAXNAMELEN
	revision uint8
}

// knows asks as iptables itself does (compatible_revision in libxtables/xtables.c): the kernel answers with ENOENT where there is no
// such extension in any revision (xt_find_revision in net/netfilter/x_tables.c), and with ENOPROTOOPT where ip_tables is not loaded,
// so that nobody is there to ask.
func knows(question uintptr, what, name, option string) (clusterip.Answer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return clusterip.CannotTell, fmt.Errorf("ask for %s: %w", what, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var asked revision
	copy(asked.name[:], name)
	length := uint32(unsafe.Sizeof(asked))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, question, uintptr(unsafe.Pointer(&asked)), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // x/sys has no getsockopt for structures of one's own
	runtime.KeepAlive(&asked)
	switch {
	case errno == 0:
		return clusterip.Yes, nil
	case errors.Is(errno, unix.ENOENT):
		return clusterip.No, ocf.Errorf(ocf.ErrInstalled, "this kernel has no %s (%s)", what, option)
	default:
		return clusterip.CannotTell, fmt.Errorf("ask for %s: %w", what, errno)
	}
}
