package earlydrop

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestErrorsInWords(t *testing.T) {
	verifier := &ebpf.VerifierError{
		Cause: unix.EACCES, Log: []string{"0: R1=ctx()", "invalid access to packet, off=3", "processed 20 insns (limit 1000000)", ""},
	}
	for want, err := range map[string]error{
		"invalid access to packet, off=3":    fmt.Errorf("load program: %w", verifier),
		"no bpf system call":                 unix.ENOSYS,
		"a capability is missing":            fmt.Errorf("map create: %w", unix.EPERM),
		"does not support it (operation not": unix.EOPNOTSUPP,
		"another program is attached there":  unix.EEXIST,
		"the MTU is above":                   fmt.Errorf("%w: Peer MTU is too large", unix.ERANGE),
		"Can't set XDP while host has LRO":   fmt.Errorf("%w: Can't set XDP while host has LRO", unix.EINVAL),
		"the interface is gone":              unix.ENODEV,
		"too little memory":                  unix.ENOMEM,
		"one line without its break":         errors.New("one line\nwithout its break"),
	} {
		if words := inWords(err); !strings.Contains(words, want) {
			t.Errorf("%v becomes %q", err, words)
		}
	}
}

func TestWhereXDPIsNotPossible(t *testing.T) {
	basic, shows := driverFeatures{known: true, xdp: netdevXDPBasic}, driverFeatures{true, netdevXDPBasic, netdevMetadataVLANTag}
	takesOff, takesOffService := map[string]bool{"rx-vlan-hw-parse": true}, map[string]bool{"rx-vlan-stag-hw-parse": true}
	for name, row := range map[string]struct {
		device xdpDevice
		how    tagging
		why    string
	}{
		"hardware":                      {xdpDevice{"eth0", "device", "", basic, nil}, tagsStay, ""},
		"a kernel that cannot be asked": {xdpDevice{"eth0", "device", "", driverFeatures{}, nil}, tagsStay, ""},
		"hardware that takes tags off":  {xdpDevice{"eth0", "device", "", basic, takesOff}, tagsLost, "ethtool -K eth0 rxvlan off"},
		"the same of 802.1ad":           {xdpDevice{"eth0", "device", "", basic, takesOffService}, tagsLost, "takes VLAN"},
		"hardware that shows them":      {xdpDevice{"eth0", "device", "", shows, takesOff}, tagsShown, ""},
		"a driver without XDP":          {xdpDevice{"eth0.5", "vlan", "", driverFeatures{known: true}, nil}, tagsLost, "has no native XDP"},
		"a veth":                        {xdpDevice{"eth0", "veth", "", shows, takesOff}, tagsShown, ""},
		"a veth of old":                 {xdpDevice{"eth0", "veth", "", basic, nil}, tagsLost, "only from Linux 6.8 on"},
		"a bond":                        {xdpDevice{"bond0", "bond", "", shows, nil}, tagsLost, "bond0 is a bond"},
	} {
		t.Run(name, func(t *testing.T) {
			if how, why := row.device.tagging(); how != row.how || !strings.Contains(why, row.why) || (row.why == "") != (why == "") {
				t.Errorf("%d: %q", how, why)
			}
		})
	}
}

func TestWhichDriversKeepTheLink(t *testing.T) {
	for driver, stays := range map[string]bool{"veth": true, "virtio_net": true, "ixgbe": false, "mlx5_core": false, "": false} {
		if (xdpDevice{driverName: driver}).staysUp() != stays {
			t.Errorf("%q: %t", driver, !stays)
		}
	}
}
