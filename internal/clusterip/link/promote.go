package link

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// ipv4Conf holds the kernel's IPv4 parameters of each NIC, of the reader's network namespace.
const ipv4Conf = "/proc/sys/net/ipv4/conf"

// hasSecondaries tells whether others hang on an address: those of the same network with the same mask, added later
// (__inet_insert_ifa in net/ipv4/devinet.c).
func hasSecondaries(ours netlink.Addr, all []netlink.Addr) bool {
	prefix, ok := prefixOf(ours.IPNet)
	if !ok || ours.Flags&unix.IFA_F_SECONDARY != 0 {
		return false
	}
	for _, other := range all {
		if theirs, ok := prefixOf(other.IPNet); ok && other.Flags&unix.IFA_F_SECONDARY != 0 && theirs.Masked() == prefix.Masked() {
			return true
		}
	}
	return false
}

// promoting does something while the NIC's parameter promote_secondaries is set: when a primary address goes, the kernel then
// makes the first that hangs on it primary, instead of removing them all and with the last one the NIC's routes
// (__inet_del_ifa in net/ipv4/devinet.c). Afterwards the parameter is what it was.
func promoting(nic clusterip.NIC, do func() error) (err error) {
	name := filepath.Join(ipv4Conf, nic.Name, "promote_secondaries")
	file, err := os.Open(name) //nolint:gosec // the name is the kernel's
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// One at a time, or one would take the other's value for the admin's. The lock goes with the file descriptor.
	if err := flock(file); err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	var value [16]byte
	n, err := file.Read(value[:])
	if err != nil {
		return err
	}
	was := bytes.TrimSpace(value[:n])
	if !bytes.Equal(was, []byte("0")) {
		return do()
	}
	// Only now: in a container /proc/sys may be read-only, and the value is right all the same.
	if err := os.WriteFile(name, []byte("1"), 0); err != nil {
		return fmt.Errorf("the addresses of %s that were added after the shared one would go with it, unless net.ipv4.conf.%s.promote_secondaries is 1: %w; set it to 1",
			nic.Name, nic.Name, err)
	}
	err = do()
	return errors.Join(err, os.WriteFile(name, was, 0))
}

func flock(file *os.File) error {
	for {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
