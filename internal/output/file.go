package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// CheckFile refuses a name that ReplaceFile must not replace: a link, a device, a folder. The error (ocf.ErrArgs) names the flag.
func CheckFile(flag, name string) error {
	fault := func(format string, args ...any) error {
		return ocf.Errorf(ocf.ErrArgs, "%s %s "+format, append([]any{flag, ocf.Quote(name)}, args...)...)
	}
	if strings.HasSuffix(name, "/") {
		return fault("is not the name of a file")
	}
	info, err := os.Lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fault("exists and is not a regular file")
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

// ReplaceFile replaces a file as a whole, so that no reader ever sees half of it. Until then the new file is hidden and its name ends in
// a number, so that no collector reads it. It is made with O_EXCL, which follows no link.
func ReplaceFile(name string, content []byte) (err error) {
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
