package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/text"
)

func judgeNetworkd(s subject) answer {
	networkd := s.Networkd.Value
	switch {
	case s.Networkd.Err != nil:
		return unknown(s.Networkd.Err, "networkctl status "+text.ShellQuote(s.nic.Name), "systemctl cat systemd-networkd")
	case networkd.File == "":
		return ok("does not manage %s", s.nic.Name)
	case networkd.KeepsAddresses && networkd.KeepsRoutes:
		return ok("manages %s, and keeps what it has not configured", s.nic.Name)
	}
	var lost, commands []string
	dropIn := func(folder, setting string) {
		folder = text.ShellQuote(path.Join("/etc/systemd", folder))
		commands = append(commands, fmt.Sprintf(`mkdir -p %s && printf '[Network]\n%s\n' >%s/clusterip.conf`, folder, setting, folder))
	}
	keep := "static"
	if networkd.KeepsLeases {
		keep = "yes" // static would protect leases no more; yes also keeps routes
	}
	if !networkd.KeepsAddresses {
		lost = append(lost, "addresses")
		dropIn("network/"+path.Base(networkd.File)+".d", "KeepConfiguration="+keep)
	}
	if !networkd.KeepsRoutes {
		lost = append(lost, "routes")
	}
	if !networkd.KeepsRoutes && (networkd.KeepsAddresses || keep != "yes") {
		dropIn("networkd.conf.d", "ManageForeignRoutes=no")
	}
	seen := fmt.Sprintf("systemd-networkd manages %s (%s), and removes foreign %s", s.nic.Name, networkd.File, strings.Join(lost, " and "))
	return warn(seen, append(commands, "systemctl restart systemd-networkd   # reads this, and now keeps the address")...)
}

func judgeNetworkManager(s subject) answer {
	switch {
	case s.NM.Err != nil:
		return unknown(s.NM.Err, "nmcli -f GENERAL device show "+text.ShellQuote(s.nic.Name))
	case !s.NM.Value:
		return ok("does not manage %s", s.nic.Name)
	}
	// NetworkManager reads one value of unmanaged-devices: += adds to those of other files. A name behind := is no pattern. Separators of
	// the list still need a backslash (NetworkManager.conf(5), Device List Format).
	literal := strings.NewReplacer(`\`, `\\`, `,`, `\,`, `;`, `\;`).Replace(s.nic.Name)
	return warn(fmt.Sprintf("NetworkManager manages %s", s.nic.Name),
		"# in use: avoid nmcli connection up and down on it, or put the node into standby first",
		"# for good: put the node into standby first, for the reload may remove the interface's addresses; let another program configure "+
			"the node's own address there; and then:",
		fmt.Sprintf(`printf '[keyfile]\nunmanaged-devices+=interface-name:=%%s\n' %s >%s`, text.ShellQuote(literal),
			text.ShellQuote("/etc/NetworkManager/conf.d/clusterip-"+s.nic.Name+".conf")),
		"systemctl reload NetworkManager")
}

func judgeFlushes(s subject) answer {
	var answers []answer
	if s.Flushes.Err != nil {
		answers = append(answers, unknown(s.Flushes.Err, "systemctl cat nftables netfilter-persistent iptables"))
	}
	for _, flush := range s.Flushes.Value {
		key, _, _ := strings.Cut(flush.Where, "=")
		table := map[clusterip.Backend]string{clusterip.Match: "mangle", clusterip.Target: "filter"}[s.layout.Backend]
		switch {
		case flush.AllIPTables:
			if table != "" {
				answers = append(answers, flushesIPTables(flush, table))
			}
		case len(flush.IPTables) == 0 && !flush.IsFile:
			answers = append(answers, warn(fmt.Sprintf("%s removes all tables of nf_tables (%s)", flush.Unit, flush.Where),
				"# change rules with nft -f, without systemctl, or put the node into standby first; or clear the command:",
				fmt.Sprintf("systemctl edit %s   # add: [Service], and below it: %s=", flush.Unit, key)))
		case len(flush.IPTables) == 0:
			answers = append(answers, warn(fmt.Sprintf("%s has flush ruleset, and %s loads it", flush.Where, flush.Unit),
				fmt.Sprintf("# in %s, instead of flush ruleset, for each table that it has:", flush.Where),
				"# table inet filter", "# delete table inet filter"))
		case slices.Contains(flush.IPTables, table):
			answers = append(answers, warn(fmt.Sprintf("%s replaces the table %s, where the agent's rules are (%s)", flush.Unit, table, flush.Where),
				fmt.Sprintf("# take the table %s out of %s, or load it with iptables-restore --noflush", table, flush.Where)))
		}
	}
	return all("no service removes rules of others", answers...)
}

// flushesIPTables is about a service whose stop, and so its restart, flushes all tables of iptables.
func flushesIPTables(flush Flush, table string) answer {
	seen := fmt.Sprintf("%s flushes all tables at a stop and a restart, also %s, where the agent's rules are (%s)", flush.Unit, table,
		flush.Where)
	const how = "# change rules with iptables, without systemctl, or put the node into standby first; or "
	if flush.IsFile {
		return warn(seen, how+"set FLUSH_ON_STOP=0 in "+flush.Where)
	}
	return warn(seen, how+"clear the command:", fmt.Sprintf("systemctl edit %s   # add: [Service], and below it: ExecStop=", flush.Unit))
}
