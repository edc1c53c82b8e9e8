package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// checkOutput refuses what replaceFile would make a file of that is none: a link, a device, a folder.
func checkOutput(flag, name string) error {
	fault := func(format string, args ...any) error {
		return ocf.Errorf(ocf.ErrArgs, "%s %s "+format, append([]any{flag, ocf.Quote(name)}, args...)...)
	}
	if strings.HasSuffix(name, "/") {
		return fault("is no name of a file")
	}
	info, err := os.Lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fault("is there, and no regular file")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fault("cannot be written: %w", err)
	}
	if info, err = os.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
		return fault("cannot be written: there is no folder %s", filepath.Dir(name))
	}
	return nil
}

const readableByAll = 0o644

// replaceFile puts a new file in the place of another one, so that nobody ever reads half of it. Until then its name is hidden and ends in a
// number, so that no collector takes it for what it looks for. It is made with O_EXCL, which follows no link.
func replaceFile(name string, content []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, writeErr := file.Write(content)
	if err := errors.Join(writeErr, file.Chmod(readableByAll), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
