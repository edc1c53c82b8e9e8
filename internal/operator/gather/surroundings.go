package gather

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"ocf-clusterip/internal/operator/doctor"
)

// networkd returns how systemd-networkd manages an interface. Its state file is read, whose form is not promised; but these two keys have
// been the same since there is networkd, and its D-Bus interface shows neither KeepConfiguration= nor ManageForeignRoutes=.
func (f nodeFiles) networkd(nicIndex int) (doctor.Networkd, error) {
	var managed doctor.Networkd
	if !f.isActive("systemd-networkd.service") {
		return managed, nil
	}
	text, err := f.read(fmt.Sprintf("run/systemd/netif/links/%d", nicIndex))
	if err != nil {
		return managed, fmt.Errorf("read what systemd-networkd does with the interface: %w", err)
	}
	link := settings{}
	link.add(text)
	file := link.last(".NETWORK_FILE")
	if file == "" || link.last(".ADMIN_STATE") == "unmanaged" {
		return managed, nil
	}
	network, err := f.settings("network/" + path.Base(file))
	if err != nil {
		return managed, fmt.Errorf("read the configuration of systemd-networkd: %w", err)
	}
	global, err := f.settings("networkd.conf")
	if err != nil {
		return managed, fmt.Errorf("read the configuration of systemd-networkd: %w", err)
	}
	keep := network.last("Network.KeepConfiguration")
	routes := global.last("Network.ManageForeignRoutes")
	managed.File = file
	managed.KeepsAddresses = isYes(keep) || keep == "static"
	managed.KeepsRoutes = isYes(keep) || routes != "" && !isYes(routes)
	managed.KeepsLeases = strings.HasPrefix(keep, "dhcp") || strings.HasPrefix(keep, "dynamic")
	return managed, nil
}

// networkManager returns whether NetworkManager manages an interface. It stores that for its next start in a file, which is also there when
// it does not answer.
func (f nodeFiles) networkManager(nicIndex int) (bool, error) {
	if !f.isActive("NetworkManager.service") {
		return false, nil
	}
	text, err := f.read(fmt.Sprintf("run/NetworkManager/devices/%d", nicIndex))
	if err != nil {
		return false, fmt.Errorf("read what NetworkManager does with the interface: %w", err)
	}
	device := settings{}
	device.add(text)
	return isYes(device.last("device.managed")), nil
}

// flushes returns the services that remove rules of others when they are reloaded or restarted.
func (f nodeFiles) flushes() ([]doctor.Flush, error) {
	var all []doctor.Flush
	var faults []error
	for _, look := range []func() ([]doctor.Flush, error){f.nftFlushes, f.iptablesFlushes} {
		found, err := look()
		all, faults = append(all, found...), append(faults, err)
	}
	return all, errors.Join(faults...)
}

// matters reports whether somebody may start, reload or restart a unit.
func (f nodeFiles) matters(unit string) bool { return f.isEnabled(unit) || f.isActive(unit) }

// nftFlushes looks at nftables.service of any distribution: at its commands, and at the files that these load.
func (f nodeFiles) nftFlushes() ([]doctor.Flush, error) {
	const unit = "nftables.service"
	if !f.matters(unit) {
		return nil, nil
	}
	service, err := f.settings("system/" + unit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", unit, err)
	}
	if len(service) == 0 {
		return nil, fmt.Errorf("%s is enabled or active, but is in none of systemd's folders", unit)
	}
	var all []doctor.Flush
	files := &ruleFiles{nodeFiles: f}
	for _, key := range []string{"ExecStart", "ExecReload", "ExecStop"} {
		for _, command := range service.all("Service." + key) {
			if flushesOurs(command) {
				all = append(all, doctor.Flush{Unit: unit, Where: key + "=" + command})
			}
			files.load(fileOf(command))
		}
	}
	for _, file := range files.flushing {
		all = append(all, doctor.Flush{Unit: unit, Where: file, IsFile: true})
	}
	return all, errors.Join(files.faults...)
}

// fileOf returns the file that a command of nft(8) loads, if it does.
func fileOf(command string) string {
	words := strings.Fields(command)
	i := slices.IndexFunc(words, func(w string) bool { return w == "-f" || w == "--file" })
	if i < 0 || i+1 == len(words) {
		return ""
	}
	return words[i+1]
}

// A ruleFiles follows the include statements of nft(8).
type ruleFiles struct {
	nodeFiles
	loaded   []string
	flushing []string
	faults   []error
}

// mostIncluded is how many files are followed.
const mostIncluded = 256

// load reads a file and those that it includes. A file that does not exist is no fault: nft refuses it, and nothing is flushed.
func (r *ruleFiles) load(name string) {
	if !path.IsAbs(name) || slices.Contains(r.loaded, name) {
		return
	}
	if len(r.loaded) == mostIncluded {
		r.faults = append(r.faults, fmt.Errorf("%s is not read: %d rule files are", name, mostIncluded))
		return
	}
	r.loaded = append(r.loaded, name)
	text, err := r.read(strings.TrimPrefix(path.Clean(name), "/"))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.faults = append(r.faults, err)
		}
		return
	}
	r.follow(name, text)
}

// follow looks for flushes in the text of a file, and loads the files that it includes.
func (r *ruleFiles) follow(name, text string) {
	includes := regexp.MustCompile(`(?m)^\s*include\s+["']([^"']+)["']`)
	if flushesOurs(text) {
		r.flushing = append(r.flushing, name)
	}
	for _, include := range includes.FindAllStringSubmatch(text, -1) {
		pattern := include[1]
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(name), pattern)
		}
		matches, err := fs.Glob(r, strings.TrimPrefix(path.Clean(pattern), "/"))
		if err != nil {
			r.faults = append(r.faults, fmt.Errorf("%s includes %q: %w", name, pattern, err))
		}
		for _, match := range matches {
			r.load("/" + match)
		}
	}
}

// flushesOurs reports whether commands of nft(8) remove all tables of a family that tables of the agent have.
func flushesOurs(commands string) bool {
	flushRuleset := regexp.MustCompile(`\bflush\s+ruleset\b[ \t]*([a-z0-9]*)`)
	for line := range strings.Lines(commands) {
		line, _, _ = strings.Cut(line, "#")
		for _, flush := range flushRuleset.FindAllStringSubmatch(line, -1) {
			if family := flush[1]; family != "inet" && family != "bridge" {
				return true
			}
		}
	}
	return false
}

// iptablesFlushes looks at the services that load what iptables-save has saved, of Debian, Fedora and Arch. iptables-restore replaces the
// tables that the file has, also those that iptables-nft keeps in nf_tables.
func (f nodeFiles) iptablesFlushes() ([]doctor.Flush, error) {
	var all []doctor.Flush
	for _, one := range []struct{ unit, file, options, keeps string }{
		{"netfilter-persistent.service", "etc/iptables/rules.v4", "etc/default/netfilter-persistent", ".IPTABLES_RESTORE_NOFLUSH"},
		{"iptables.service", "etc/sysconfig/iptables", "", ""},
		{"iptables.service", "etc/iptables/iptables.rules", "", ""},
	} {
		if !f.matters(one.unit) {
			continue
		}
		text, err := f.read(one.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, err
		}
		options := settings{}
		if one.options != "" {
			text, err := f.read(one.options)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return all, err
			}
			options.add(text)
		}
		if tables := tablesIn(text); len(tables) > 0 && !isYes(options.last(one.keeps)) {
			all = append(all, doctor.Flush{Unit: one.unit, Where: "/" + one.file, IsFile: true, IPTables: tables})
		}
	}
	return all, nil
}

// tablesIn returns the names of the tables that a file of iptables-save has.
func tablesIn(saved string) []string {
	var tables []string
	for line := range strings.Lines(saved) {
		if table, is := strings.CutPrefix(strings.TrimSpace(line), "*"); is {
			tables = append(tables, table)
		}
	}
	return tables
}
