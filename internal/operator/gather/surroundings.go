package gather

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
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

// neighbourTable reads what the kernel counts of a family's neighbours: a line of names, and for each CPU a line of hexadecimal numbers
// (neigh_stat_seq_show in net/core/neighbour.c). The number of entries is in each of these lines; all others are the CPU's own.
func (f nodeFiles) neighbourTable(name string) (doctor.NeighbourTable, error) {
	var table doctor.NeighbourTable
	name = "proc/net/stat/" + name
	text, err := f.read(name)
	if err != nil {
		return table, fmt.Errorf("read the kernel's neighbour statistics: %w", err)
	}
	names, rows, _ := strings.Cut(text, "\n")
	read := func(row []string, name string) (uint64, error) {
		i := slices.Index(strings.Fields(names), name)
		if i < 0 || i >= len(row) {
			return 0, fmt.Errorf("it has no %s", name)
		}
		return strconv.ParseUint(row[i], 16, 64)
	}
	if strings.TrimSpace(rows) == "" {
		return table, fmt.Errorf("read /%s: it has no line for a CPU", name)
	}
	for row := range strings.Lines(rows) {
		entries, err := read(strings.Fields(row), "entries")
		overflows, overflowsErr := read(strings.Fields(row), "table_fulls")
		if err := errors.Join(err, overflowsErr); err != nil {
			return table, fmt.Errorf("read /%s: %w", name, err)
		}
		table.Entries, table.Overflows = entries, table.Overflows+overflows
	}
	return table, nil
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
	files := &ruleFiles{nodeFiles: f, workIn: "/"}
	if folder := service.last("Service.WorkingDirectory"); path.IsAbs(strings.TrimPrefix(folder, "-")) {
		files.workIn = strings.TrimPrefix(folder, "-")
	}
	for _, key := range []string{"ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"} {
		for _, command := range service.all("Service." + key) {
			where := key + "=" + command
			parsed, understood := parseNft(command)
			switch {
			case flushesOurs(command):
				all = append(all, doctor.Flush{Unit: unit, Where: where})
			case !understood:
				files.faults = append(files.faults, fmt.Errorf("what %s loads with %s", unit, where))
			}
			files.run(parsed)
		}
	}
	for _, file := range files.flushing {
		all = append(all, doctor.Flush{Unit: unit, Where: file, IsFile: true})
	}
	return all, errors.Join(files.faults...)
}

// A ruleFiles follows the include statements of nft(8).
type ruleFiles struct {
	nodeFiles
	workIn   string   // the folder in which nft runs
	paths    []string // where nft looks for files that are included
	loaded   []string
	flushing []string
	faults   []error
}

// run loads what a command loads. nft looks for included files in the folders of -I and in /etc, and newer ones (libnftables: "add base
// directory of -f/--filename to include path", June 2024) also beside the file of -f. Here all count.
func (r *ruleFiles) run(command nftCommand) {
	r.paths = append(slices.Clone(command.includes), "/etc")
	if command.file != "" {
		r.paths = append(r.paths, path.Dir(command.file))
		r.load(command.file)
	}
	r.include("a command", command.text)
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
	if flushesOurs(text) {
		r.flushing = append(r.flushing, name)
	}
	r.include(name, text)
}

// include loads the files that commands of nft(8) include.
func (r *ruleFiles) include(by, commands string) {
	includes := regexp.MustCompile(`(?m)(?:^|;)\s*["']?include\s+\\?["']([^"'\\]+)`)
	for _, include := range includes.FindAllStringSubmatch(commands, -1) {
		for _, pattern := range r.candidates(include[1]) {
			matches, err := fs.Glob(r, strings.TrimPrefix(path.Clean(pattern), "/"))
			if err != nil {
				r.faults = append(r.faults, fmt.Errorf("%s includes %q: %w", by, pattern, err))
			}
			for _, match := range matches {
				r.load("/" + match)
			}
		}
	}
}

// candidates returns where nft looks for a file: in its include path, unless its name is absolute or begins with a dot.
func (r *ruleFiles) candidates(name string) []string {
	switch {
	case path.IsAbs(name):
		return []string{name}
	case strings.HasPrefix(name, "./"), strings.HasPrefix(name, "../"):
		return []string{path.Join(r.workIn, name)}
	}
	var all []string
	for _, folder := range r.paths {
		all = append(all, path.Join(folder, name))
	}
	return all
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
// tables that the file has, also those that iptables-nft keeps in nf_tables. A stop, which is half of a restart, flushes all tables: Arch's
// iptables-flush and Fedora's iptables.init stop always do, Debian's netfilter-persistent with FLUSH_ON_STOP above 0.
func (f nodeFiles) iptablesFlushes() ([]doctor.Flush, error) {
	const (
		persistent, options = "netfilter-persistent.service", "etc/default/netfilter-persistent"
		iptables            = "iptables.service"
	)
	var all []doctor.Flush
	var faults []error
	replaces := func(unit, file string) {
		text, err := f.read(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
		if tables := tablesIn(text); len(tables) > 0 {
			all = append(all, doctor.Flush{Unit: unit, Where: "/" + file, IsFile: true, IPTables: tables})
		}
	}
	if f.matters(persistent) {
		text, err := f.read(options)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
		set := settings{}
		set.add(text)
		if number, err := strconv.Atoi(shellValue(set.last(".FLUSH_ON_STOP"))); err == nil && number > 0 {
			all = append(all, doctor.Flush{Unit: persistent, Where: "/" + options, IsFile: true, AllIPTables: true})
		}
		if shellValue(set.last(".IPTABLES_RESTORE_NOFLUSH")) != "yes" { // its script compares with nothing else
			replaces(persistent, "etc/iptables/rules.v4")
		}
	}
	if f.matters(iptables) {
		service, err := f.settings("system/" + iptables)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("read %s: %w", iptables, err))
		case len(service) == 0:
			faults = append(faults, fmt.Errorf("%s is enabled or active, but is in none of systemd's folders", iptables))
		}
		for _, command := range service.all("Service.ExecStop") {
			all = append(all, doctor.Flush{Unit: iptables, Where: "ExecStop=" + command, AllIPTables: true})
		}
		replaces(iptables, "etc/sysconfig/iptables")
		replaces(iptables, "etc/iptables/iptables.rules")
	}
	return all, errors.Join(faults...)
}

// shellValue returns the value of a variable in a file that a shell reads: without quotes and without a comment.
func shellValue(assigned string) string {
	word, _, _ := strings.Cut(assigned, " ")
	return strings.Trim(word, `"'`)
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
