package lan

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnableGRO lets an interface join received packets before its host sees them (generic receive offload). A veth then takes frames in by
// NAPI, as hardware does; only so can it receive frames that an XDP program redirects to its peer (veth_xdp_xmit in drivers/net/veth.c).
func (h *Host) EnableGRO(nic string) error { return h.setOffload(nic, unix.ETHTOOL_SGRO, 1) }

// DisableChecksumOffload has the kernel compute the checksums of what the host sends. On virtual interfaces frames mostly come without:
// one that is captured and sent again is then broken.
func (h *Host) DisableChecksumOffload(nic string) error {
	return h.setOffload(nic, unix.ETHTOOL_STXCSUM, 0)
}

func (h *Host) setOffload(nic string, command, data uint32) error {
	value := struct{ command, data uint32 }{command, data} // struct ethtool_value
	request := struct {                                    // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], nic)
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("ethtool command %#x on %s of %s: %w", command, nic, h.Name, errno)
		}
		return nil
	})
}
