package gather

import (
	"errors"
	"io"
	"os"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/plan"
	"ocf-clusterip/internal/output"
	"ocf-clusterip/internal/text"
)

// Log counts the clients in a log, which may be long; the name - is the standard input. It must not be the file that the picture replaces.
func Log(name, picture string, stdin io.Reader, progressTo io.Writer, tally *plan.Tally) (*plan.Log, error) {
	from, size, log := stdin, int64(0), &plan.Log{Name: "the standard input", Tally: tally}
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // the administrator names it
		if err != nil {
			return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %w", err)
		}
		defer file.Close() //nolint:errcheck // it was only read
		from, log.Name = file, name
	}
	if file, ok := from.(*os.File); ok {
		info, err := file.Stat()
		if err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		if former, formerErr := os.Stat(picture); err == nil && formerErr == nil && os.SameFile(info, former) {
			return nil, ocf.Errorf(ocf.ErrArgs, "--svg %s is the log of --clients, which the picture would replace", ocf.Quote(picture))
		}
	}
	progress := output.NewProgress(progressTo, size)
	err := tally.Read(from, func(read int64) { progress.Report(read, tally.Lines) })
	progress.End()
	packed, isPacked := errors.AsType[*plan.CompressedError](err)
	switch {
	case isPacked && name != "-":
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s %w; unpack it: %s %s | ocf-clusterip plan --clients - …",
			name, err, packed.Unpacker, text.ShellQuote(name))
	case isPacked:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s %w; unpack it with %s", log.Name, err, packed.Unpacker)
	case err != nil:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: %s: %w", log.Name, err)
	case tally.Lines == tally.Without:
		return nil, ocf.Errorf(ocf.ErrArgs, "--clients: there is no address in %s (%s)", log.Name, plan.Counted(int(tally.Lines), "line"))
	}
	return log, nil
}
