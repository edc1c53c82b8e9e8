package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel is an unpacked one.
type Kernel struct {
	Version string            // "6.1.0-50-cloud-amd64"
	image   string            // its file
	modules map[string]string // their files, by the names that lsmod(8) prints
}

// metaPackage depends on a release's newest kernel for virtual machines.
const metaPackage = "linux-image-cloud-amd64"

// askAgainAfter is how old a cached kernel may be until the archive is asked for a newer one.
const askAgainAfter = 14 * 24 * time.Hour

// FetchKernel returns the newest kernel of a release of Debian, which it downloads and unpacks into a folder of the release below the
// given one. A kernel that is there is taken as it is: for some time without a question to the archive, and later where the archive
// has no newer one or cannot be reached.
func FetchKernel(ctx context.Context, folder, release string, logf func(format string, values ...any)) (Kernel, error) {
	folder = filepath.Join(folder, release)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return Kernel{}, err
	}
	// Of two test runs side by side, the second one finds the kernel of the first.
	lock, err := os.OpenFile(folder+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Kernel{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Kernel{}, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	cached, asked, cacheErr := readCache(folder)
	if cacheErr == nil && time.Since(asked) < askAgainAfter {
		return cached, nil
	}
	fetched, err := fetch(ctx, folder, release)
	switch {
	case err == nil:
		return fetched, writeCache(folder, fetched, cached)
	case cacheErr == nil:
		logf("cannot ask for a newer kernel than Linux %s: %v", cached.Version, err)
		return cached, nil
	default:
		return Kernel{}, err
	}
}

// newest is a file that names the newest kernel. It is written when the archive was asked, and after the kernel was unpacked.
const newest = "newest"

func readCache(folder string) (k Kernel, asked time.Time, err error) {
	version, err := os.ReadFile(filepath.Join(folder, newest))
	if err != nil {
		return k, asked, err
	}
	info, err := os.Stat(filepath.Join(folder, newest))
	if err != nil {
		return k, asked, err
	}
	k, err = open(folder, string(version))
	return k, info.ModTime(), err
}

// writeCache also removes what else is in the folder: older kernels, and what interrupted downloads have left. Only the kernel before
// stays, because another test run may be about to boot it.
func writeCache(folder string, k, before Kernel) error {
	scratch := filepath.Join(folder, newest+".new")
	if err := os.WriteFile(scratch, []byte(k.Version), 0o644); err != nil {
		return err
	}
	if err := os.Rename(scratch, filepath.Join(folder, newest)); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		if name := e.Name(); name != newest && name != k.Version && name != before.Version {
			err = errors.Join(err, os.RemoveAll(filepath.Join(folder, name)))
		}
	}
	return err
}

// aptConfig gives apt folders of its own. The machine's package lists are only of its own release, and must not change. The network
// settings (a proxy, for example) are those of the machine's configuration. Hooks in it that run after an update are for the machine's
// own lists only.
const aptConfig = `
Dir::State "FOLDER/state";
Dir::State::status "/dev/null";
Dir::Cache "FOLDER/cache";
Dir::Etc::sourcelist "FOLDER/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::http::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`

// sources has apt verify what it downloads, whatever the machine trusts beside. The keys are of the package debian-archive-keyring.
const sources = "deb [arch=amd64 target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " +
	"http://deb.debian.org/debian RELEASE main\n"

// kernelPackage is how apt-cache lists the package that the metapackage stands for.
var kernelPackage = regexp.MustCompile(`(?m)^linux-image-(\d\S*)$`)

// fetch asks the archive for a release's newest kernel, and downloads it unless it is in the folder.
func fetch(ctx context.Context, folder, release string) (Kernel, error) {
	// All in a folder of its own first: a download that was interrupted must not look like a kernel.
	scratch, err := os.MkdirTemp(folder, "fetch-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(scratch)
	config := filepath.Join(scratch, "apt.conf")
	values := strings.NewReplacer("FOLDER", scratch, "RELEASE", release)
	if err := errors.Join(
		os.MkdirAll(filepath.Join(scratch, "state", "lists", "partial"), 0o755),
		os.MkdirAll(filepath.Join(scratch, "cache", "archives", "partial"), 0o755),
		os.WriteFile(config, []byte(values.Replace(aptConfig)), 0o644),
		os.WriteFile(filepath.Join(scratch, "sources.list"), []byte(values.Replace(sources)), 0o644),
	); err != nil {
		return Kernel{}, err
	}
	if _, err := run(ctx, scratch, "apt-get", "-q", "-c", config, "update"); err != nil {
		return Kernel{}, err
	}
	names, err := run(ctx, scratch, "apt-cache", "-c", config, "depends", "--recurse", "--important", metaPackage)
	if err != nil {
		return Kernel{}, err
	}
	found := kernelPackage.FindStringSubmatch(names)
	if found == nil {
		return Kernel{}, fmt.Errorf("%s of Debian %s depends on no kernel: %s", metaPackage, release, names)
	}
	version := found[1]
	if k, err := open(folder, version); err == nil {
		return k, nil
	}
	// In sid the kernel's package has split: it only depends on those with the image and with the modules.
	packages := regexp.MustCompile(`(?m)^linux-\w+-`+regexp.QuoteMeta(version)+`$`).FindAllString(names, -1)
	if _, err := run(ctx, scratch, append([]string{"apt-get", "-q", "-c", config, "download"}, packages...)...); err != nil {
		return Kernel{}, err
	}
	files, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return Kernel{}, fmt.Errorf("of the packages %s, %d were downloaded: %w", strings.Join(packages, " "), len(files), err)
	}
	for _, file := range files {
		if _, err := run(ctx, scratch, "dpkg-deb", "-x", file, filepath.Join(scratch, version)); err != nil {
			return Kernel{}, err
		}
	}
	if _, err := open(scratch, version); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(filepath.Join(scratch, version), filepath.Join(folder, version)); err != nil {
		return Kernel{}, err
	}
	return open(folder, version)
}

// open finds the image and the modules of an unpacked kernel, wherever its release has them.
func open(folder, version string) (Kernel, error) {
	k := Kernel{Version: version, modules: map[string]string{}}
	root := filepath.Join(folder, version)
	for _, place := range []string{"boot/vmlinuz-" + version, "usr/lib/modules/" + version + "/vmlinuz"} {
		if _, err := os.Stat(filepath.Join(root, place)); err == nil {
			k.image = filepath.Join(root, place)
		}
	}
	for _, place := range []string{"lib/modules", "usr/lib/modules"} {
		err := filepath.WalkDir(filepath.Join(root, place, version, "kernel"), func(path string, e fs.DirEntry, err error) error {
			name, isModule := strings.CutSuffix(strings.TrimSuffix(filepath.Base(path), compressed), ".ko")
			if err == nil && isModule && !e.IsDir() {
				k.modules[strings.ReplaceAll(name, "-", "_")] = path
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	if k.image == "" || len(k.modules) == 0 {
		return k, fmt.Errorf("no kernel with modules in %s", root)
	}
	return k, nil
}

// compressed is how the names of modules end that `make modules_install` has compressed (CONFIG_MODULE_COMPRESS_XZ).
const compressed = ".xz"

// module returns what is to be loaded; nothing where the kernel has no such module.
func (k Kernel) module(ctx context.Context, name string) ([]byte, error) {
	path, ok := k.modules[name]
	switch {
	case !ok:
		return nil, nil
	case strings.HasSuffix(path, compressed):
		content, err := run(ctx, "/", "xz", "--decompress", "--stdout", path)
		return []byte(content), err
	default:
		return os.ReadFile(path)
	}
}
