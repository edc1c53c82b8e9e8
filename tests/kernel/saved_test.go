//go:build system

package kernel

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
)

// `nft list ruleset >/etc/nftables.conf` and a reboot: the file is loaded as a whole or not at all, with the admin's own firewall.
func TestASavedRulesetLoadsAgain(t *testing.T) {
	for name, p := range map[string]harness.Parameters{
		"one address": webIP(),
		"everything": webIP("ip", dualStack, "hashmode", "sourceip-sourceport-destport", "hash_prefix4", "24", "hash_prefix6", "64",
			"services", "tcp/80 tcp/443 tcp/8000-8080 udp/53 icmp", "drain", "60", "linger", "1"),
		"every port":      webIP("ip", dualStack, "hashmode", "sourceip-sourceport", "drain", "60", "linger", "1"),
		"on a bridge":     webIP("nic", ownBridge, "drain", "60", "linger", "1"),
		"like the target": webIP("hash_compat", "clusterip", "hash_seed", "0", "hashmode", "sourceip-sourceport"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestNode(t, p)
			if p.Parameters["nic"] == ownBridge {
				bridged(t, p)
				clean, err := p.Host.Dump()
				check(t, err)
				p.clean = clean
			}
			p.startBoth(t)
			nft(t, p.Host, "table inet filter { chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept; }; }")
			file := filepath.Join(t.TempDir(), "nftables.conf")
			saved := p.by(t, "nft list ruleset")
			check(t, os.WriteFile(file, []byte("flush ruleset\n"+saved), 0o600))
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.stop(5), ocf.Success))

			p.by(t, "nft flush ruleset")
			p.by(t, "nft -f "+file)
			times := regexp.MustCompile(` expires \w+`)
			if loaded := p.by(t, "nft list ruleset"); times.ReplaceAllString(loaded, "") != times.ReplaceAllString(saved, "") {
				t.Errorf("loaded is something else (-saved +loaded):\n%s", changes(saved, loaded))
			}
			// Pacemaker's probe finds the leftovers, and stop removes them.
			if r := p.monitor(2); r.ExitCode != int(ocf.ErrGeneric) {
				t.Errorf("monitor returns %d: %s", r.ExitCode, r.Stderr)
			}
			check(t, status(p.stop(2), ocf.Success))
			check(t, status(p.stop(5), ocf.Success))
			p.by(t, "nft delete table inet filter")
			p.checkNothingIsLeft(t)
		})
	}
}

// A firewall's reload loads what was saved in a running cluster, too. Other nodes may own by now what this one owned then.
func TestBucketsOfASavedRulesetDoNotCount(t *testing.T) {
	p := newTestNode(t, webIP("ip", dualStack, "drain", "60", "linger", "1"))
	p.startBoth(t)
	file := filepath.Join(t.TempDir(), "nftables.conf")
	check(t, os.WriteFile(file, []byte("flush ruleset\n"+p.by(t, "nft list ruleset")), 0o600))
	check(t, status(p.call("stop", 5, "OCF_RESKEY_drain=0"), ocf.Success))
	p.by(t, "nft -f "+file)

	for _, bucket := range []int{2, 5} {
		if r := p.monitor(bucket); r.ExitCode != int(ocf.ErrGeneric) || !strings.Contains(r.Stderr, "loaded from a file") {
			t.Errorf("monitor of bucket %d returns %d: %s", bucket, r.ExitCode, r.Stderr)
		}
	}
	check(t, status(p.start(2), ocf.Success))
	check(t, status(p.monitor(2), ocf.Success))
	check(t, status(p.monitor(5), ocf.NotRunning))
	p.checkNothingIsLeft(t)
}
