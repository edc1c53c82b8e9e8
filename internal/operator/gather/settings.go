package gather

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// nodeFiles are the files of this node: os.DirFS("/").
type nodeFiles struct{ fs.FS }

// largestFile is the limit for a file of settings or rules, in bytes.
const largestFile = 1 << 20

// read returns the text of a file. A file that is masked by a link to /dev/null is empty.
func (f nodeFiles) read(name string) (string, error) {
	info, err := fs.Stat(f, name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // a named pipe would keep the reader waiting
		return "", nil
	}
	file, err := f.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, largestFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read /%s: %w", name, err)
	case len(text) > largestFile:
		return "", fmt.Errorf("read /%s: it is larger than %d bytes", name, largestFile)
	}
	return string(text), nil
}

// settings are what systemd and its programs read from a file and its drop-ins, by section and key: "Network.KeepConfiguration". The keys
// of a file without sections begin with a dot.
type settings map[string][]string

// add reads the text of a file (systemd.syntax(7)), which adds to what was read before. Lines that are no setting
// are skipped, as systemd does.
func (s settings) add(text string) {
	section, begun := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // also between the lines of one setting
		}
		line = begun + line
		if whole, continues := strings.CutSuffix(line, `\`); continues {
			begun = whole + " "
			continue
		}
		begun = ""
		if name, isSection := strings.CutPrefix(line, "["); isSection {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		if key, value, is := strings.Cut(line, "="); is {
			key = section + "." + strings.TrimSpace(key)
			s[key] = append(s[key], strings.TrimSpace(value))
		}
	}
}

// last returns the value that counts of a setting that has one value.
func (s settings) last(key string) string {
	if values := s[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// all returns the values of a setting that is a list: an empty value clears it.
func (s settings) all(key string) []string {
	values := s[key]
	for i, value := range slices.Backward(values) {
		if value == "" {
			return values[i+1:]
		}
	}
	return values
}

// isYes returns a boolean as systemd, NetworkManager and, in quotes, shell scripts have it.
func isYes(value string) bool {
	return slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(strings.Trim(value, `"'`)))
}

// systemdFolders are where systemd and its programs look for their files, the most important first (systemd.unit(5), networkd.conf(5)). The
// last one is for systems where /lib is no link to /usr/lib.
func systemdFolders() []string {
	return []string{"etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd"}
}

// settings reads a file below the folders of systemd, such as networkd.conf or system/nftables.service, and its drop-ins. A file hides
// those of the same name in less important folders.
func (f nodeFiles) settings(name string) (settings, error) {
	read := settings{}
	dropIns := map[string]string{} // by their base names
	var main string
	for _, folder := range systemdFolders() {
		file := path.Join(folder, name)
		if _, err := fs.Stat(f, file); err == nil {
			main = cmp.Or(main, file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		entries, err := fs.ReadDir(f, file+".d")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			base := entry.Name()
			if _, hidden := dropIns[base]; !hidden && strings.HasSuffix(base, ".conf") {
				dropIns[base] = path.Join(file+".d", base)
			}
		}
	}
	files := []string{}
	for _, dropIn := range dropIns {
		files = append(files, dropIn)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(path.Base(a), path.Base(b)) })
	if main != "" {
		files = slices.Insert(files, 0, main)
	}
	for _, file := range files {
		text, err := f.read(file)
		if err != nil {
			return nil, err
		}
		read.add(text)
	}
	return read, nil
}

// isActive reports whether a unit of systemd is active. While it is, systemd keeps a link that it needs itself when it is executed anew; so
// no question over D-Bus is needed, which nobody may answer.
func (f nodeFiles) isActive(unit string) bool {
	_, err := fs.Lstat(f.FS, "run/systemd/units/invocation:"+unit)
	return err == nil
}

// isEnabled reports whether systemd starts a unit at boot.
func (f nodeFiles) isEnabled(unit string) bool {
	for _, kind := range []string{"wants", "requires"} {
		if links, err := fs.Glob(f, "etc/systemd/system/*."+kind+"/"+unit); err == nil && len(links) > 0 {
			return true
		}
	}
	return false
}
