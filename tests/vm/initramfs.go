package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// An Initramfs is being filled: the whole file system of a guest.
type Initramfs struct {
	archive *cpio.Writer
	present map[string]bool
	modules []string // in the order of loading
}

// NewInitramfs writes to a file as `cpio --format=newc` does (Documentation/driver-api/early-userspace/buffer-format.rst).
func NewInitramfs(to io.Writer) (*Initramfs, error) {
	a := &Initramfs{archive: cpio.NewWriter(to), present: map[string]bool{"/": true}}
	var errs []error
	for _, folder := range []string{
		"/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/etc", "/root", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64",
	} {
		errs = append(errs, a.folder(folder))
	}
	// As Debian 12 has it.
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		errs = append(errs, a.link("/"+name, "usr/"+name))
	}
	return a, errors.Join(append(errs, a.link("/var/run", "/run"))...)
}

// Close writes the list of modules and the end.
func (a *Initramfs) Close() error {
	return errors.Join(a.Text("/modules/order", strings.Join(a.modules, "\n")), a.archive.Close())
}

// Text adds a file.
func (a *Initramfs) Text(name, text string) error { return a.file(name, 0o644, []byte(text)) }

// File adds a copy of a file, executable if it is.
func (a *Initramfs) File(name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return a.file(name, info.Mode().Perm(), content)
}

// Program adds a program of the machine, where it is, with the libraries that it is linked with.
func (a *Initramfs) Program(ctx context.Context, path string) error {
	if err := a.resolved(path); err != nil {
		return err
	}
	libraries, err := run(ctx, "/", "ldd", path)
	if err != nil && !strings.Contains(err.Error(), "not a dynamic executable") {
		return err
	}
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(libraries, -1) {
		if err := a.resolved(library); err != nil {
			return err
		}
	}
	return nil
}

// resolved adds the file that a path leads to, under the path.
func (a *Initramfs) resolved(path string) error {
	if folder := strings.SplitN(path, "/", 3)[1]; slices.Contains([]string{"bin", "sbin", "lib", "lib64"}, folder) {
		path = "/usr" + path
	}
	if a.present[path] {
		return nil
	}
	from, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return a.File(path, from)
}

// Module adds a module of the kernel after those that it depends on. One that the kernel has built in, or lacks, is no module.
func (a *Initramfs) Module(ctx context.Context, k Kernel, name string) error {
	name = strings.ReplaceAll(name, "-", "_")
	to := "/modules/" + name + ".ko"
	if a.present[to] {
		return nil
	}
	content, err := k.module(ctx, name)
	if err != nil || content == nil {
		return err
	}
	depends, err := dependencies(content)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	for _, d := range depends {
		if err := a.Module(ctx, k, d); err != nil {
			return err
		}
	}
	a.modules = append(a.modules, to)
	return a.file(to, 0o644, content)
}

// dependencies reads a module's own list (MODULE_INFO(depends, …), section .modinfo).
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok {
			return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}

func (a *Initramfs) folder(name string) error {
	if a.present[name] {
		return nil
	}
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	a.present[name] = true
	return a.archive.WriteHeader(&cpio.Header{Name: strings.TrimPrefix(name, "/"), Mode: cpio.TypeDir | 0o755, Links: 2})
}

func (a *Initramfs) link(name, target string) error {
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	a.present[name] = true
	header := &cpio.Header{Name: strings.TrimPrefix(name, "/"), Mode: cpio.TypeSymlink | 0o777, Links: 1, Size: int64(len(target))}
	if err := a.archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.WriteString(a.archive, target)
	return err
}

func (a *Initramfs) file(name string, mode os.FileMode, content []byte) error {
	if a.present[name] {
		return fmt.Errorf("%s is there already", name)
	}
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	a.present[name] = true
	header := &cpio.Header{Name: strings.TrimPrefix(name, "/"), Mode: cpio.TypeReg | cpio.FileMode(mode), Links: 1, Size: int64(len(content))}
	if err := a.archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := a.archive.Write(content)
	return err
}
