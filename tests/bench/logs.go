package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A race compares programs that read one long log.
type race struct {
	lines   int
	bytes   int64
	clients int
	runners []*series // the first is ours, the second the peer
}

const (
	raceLines    = 10_000_000
	raceClients  = 300_000
	raceSeconds  = 10 // that plan may take for all lines
	raceFactor   = 2  // times that plan is to be cheaper than awk, which only counts first words
	racePatience = 5 * time.Minute
)

// races lets plan count the clients of a log, beside awk that counts the first words of its lines, and wc that only looks for the ends of
// lines.
func races(ctx context.Context, p *progress, agent, scratch string, quick bool) (r *race, err error) {
	r = &race{lines: raceLines, clients: raceClients}
	rounds := 3
	if quick {
		r.lines, rounds = raceLines/50, 1
	}
	log, err := os.OpenFile(filepath.Join(scratch, "access.log"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(log.Name())) }()
	if r.bytes, err = r.write(ctx, p, log); err != nil {
		return nil, fmt.Errorf("write a log: %w", err)
	}
	r.runners = []*series{
		{
			name: "ocf-clusterip plan --clients",
			argv: []string{agent, "plan", "--nodes", "16", "--fail", "2", "--to", ourAddress + " 2001:db8:10::3", "--clients", log.Name()},
		},
		{name: "awk '{n[$1]++} END {…}'", argv: []string{"awk", "{n[$1]++} END {for (a in n) sum += n[a]; print sum}", log.Name()}},
		{name: "wc -l", argv: []string{"wc", "-l", log.Name()}},
	}
	for _, runner := range r.runners {
		if runner.argv[0], err = exec.LookPath(runner.argv[0]); err != nil {
			return nil, err
		}
		runner.env = []string{"LC_ALL=C"}
	}
	for round := range rounds {
		for _, runner := range r.runners {
			p.report("a long log: %s, round %d of %d", runner.name, round+1, rounds)
			l, err := executeWithin(ctx, racePatience, runner.env, runner.argv)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", runner.name, err)
			}
			runner.laps = append(runner.laps, l)
		}
	}
	return r, nil
}

// write makes a log as web servers write it, the same each time: a few clients are heavy, most are light, one in ten has IPv6.
func (r *race) write(ctx context.Context, p *progress, file *os.File) (bytes int64, err error) {
	defer func() { err = errors.Join(err, file.Close()) }()
	const line, spare = 150, 1 << 30 // bytes
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &disk); err != nil {
		return 0, err
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < int64(r.lines)*line+spare {
		return 0, fmt.Errorf("only %d MB are free in %s", free>>20, filepath.Dir(file.Name()))
	}
	random := rand.New(rand.NewPCG(1, 2))
	clients := make([]string, r.clients)
	for i := range clients {
		n := random.Uint32()
		clients[i] = netip.AddrFrom4([4]byte{byte(11 + n>>24%200), byte(n >> 16), byte(n >> 8), byte(n)}).String()
		if i%10 == 0 {
			clients[i] = fmt.Sprintf("2001:db8:%x::%x", n>>16, n&0xffff)
		}
	}
	zipf := rand.NewZipf(random, 1.1, 50, uint64(r.clients-1))
	to := bufio.NewWriterSize(file, 1<<20)
	for i := range r.lines { // an error stays with the writer until Flush
		if i%100_000 == 0 {
			p.report("a long log: %d of %d lines are written", i, r.lines)
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
		_, _ = fmt.Fprintf(
			to,
			"%s - - [10/Oct/2026:13:%02d:%02d +0200] \"GET /articles/%d.html HTTP/1.1\" 200 %d \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n",
			clients[zipf.Uint64()],
			i/60%60,
			i%60,
			random.IntN(10_000),
			random.IntN(90_000),
		)
	}
	if err := to.Flush(); err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// ratio is how many times cheaper plan is than awk.
func (r *race) ratio() (wall, cpu float64) {
	return pair{ours: median(r.runners[0].laps), theirs: median(r.runners[1].laps)}.ratio()
}

func (r *race) kept() bool {
	wall, cpu := r.ratio()
	took := median(r.runners[0].laps).wall
	return min(wall, cpu) >= raceFactor && took <= raceSeconds*time.Second
}

func (r *race) report() string {
	var t table
	t.row("program", "wall", "CPU", "runs")
	for _, runner := range r.runners {
		l := median(runner.laps)
		t.row(runner.name, fmt.Sprintf("%.2f", l.wall.Seconds()), fmt.Sprintf("%.2f", l.cpu.Seconds()), fmt.Sprint(len(runner.laps)))
	}
	return fmt.Sprintf("\nA log of %d lines, %d MB, of %d clients at most: medians in s\n\n%s", r.lines, r.bytes/1e6, r.clients, t.String())
}

// result returns the race's row in the table of promises.
func (r *race) verdict() []string {
	verdict := "kept"
	if !r.kept() {
		verdict = "NOT KEPT"
	}
	wall, cpu := r.ratio()
	return []string{
		fmt.Sprintf("plan reads %d lines in %d s, at least %d times cheaper than awk counts first words", r.lines, raceSeconds, raceFactor),
		verdict,
		fmt.Sprintf("%.2f s; %.1f in wall time, %.1f in CPU time", median(r.runners[0].laps).wall.Seconds(), wall, cpu),
	}
}
