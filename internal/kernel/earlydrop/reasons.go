package earlydrop

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/ocf"
)

// inWords returns what an error means.
func inWords(err error) string {
	var verifier *ebpf.VerifierError
	why := ""
	switch {
	case errors.As(err, &verifier):
		return "the kernel's verifier refuses the BPF program: " + ocf.OneLine(lastLine(verifier))
	case errors.Is(err, unix.ENOSYS):
		why = "the kernel has no bpf system call (CONFIG_BPF_SYSCALL)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		why = "the kernel refuses the bpf system call: a capability is missing (CAP_SYS_ADMIN, CAP_NET_ADMIN), or a lockdown forbids it"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, ebpf.ErrNotSupported):
		why = "the driver or the kernel does not support it"
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		why = "another program is attached there"
	case errors.Is(err, unix.ERANGE):
		why = "the MTU is above the driver's limit for it"
	case errors.Is(err, unix.ENOMEM):
		why = "the kernel has too little memory for it"
	case errors.Is(err, unix.ENODEV):
		why = "the interface is gone"
	default:
		return ocf.OneLine(err.Error())
	}
	return fmt.Sprintf("%s (%s)", why, ocf.OneLine(err.Error()))
}

// lastLine returns the line of the verifier's log that tells why.
func lastLine(err *ebpf.VerifierError) string {
	for _, line := range slices.Backward(err.Log) {
		if line != "" && !strings.HasPrefix(line, "processed ") {
			return fmt.Sprintf("%s (%v)", line, err.Cause)
		}
	}
	return err.Error()
}
