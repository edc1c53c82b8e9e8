package lan

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnableGRO lets an interface join received packets before its host sees them (generic receive offload). A veth then takes frames in by
// NAPI, as hardware does; only so can it receive frames that an XDP program redirects to its peer (veth_xdp_xmit in drivers/net/veth.c).
func (h *Host) EnableGRO(nic string) error {
	value := struct{ command, data uint32 }{unix.ETHTOOL_SGRO, 1} // struct ethtool_value
	request := struct {                                           // struct ifreq
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
			return fmt.Errorf("enable GRO of %s of %s: %w", nic, h.Name, errno)
		}
		return nil
	})
}
