//go:build system

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/lan"
	"ocf-clusterip/tests/tty"
)

// xterm is the environment of a program on a terminal.
var xterm = append([]string{"TERM=xterm-256color"}, lan.ToolPath...)

// topOn runs top on a terminal of a node.
func topOn(t *testing.T, s *site, node, width, height int, arguments ...string) *tty.Terminal {
	t.Helper()
	return topWith(t, s, node, width, height, xterm, arguments...)
}

func topWith(t *testing.T, s *site, node, width, height int, environment []string, arguments ...string) *tty.Terminal {
	t.Helper()
	terminal, err := tty.New(width, height)
	check(t, err)
	t.Cleanup(func() { check(t, terminal.Close()) })
	command := exec.CommandContext(t.Context(), s.agents[node].Program, append([]string{"top"}, arguments...)...)
	command.Env = environment
	check(t, terminal.Start(command, s.Nodes[node].Do))
	return terminal
}

// shows waits until a terminal shows a frame that is wanted.
func shows(t *testing.T, terminal *tty.Terminal, what string, is func(frame string) bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is(terminal.Text()) {
			return
		}
		select {
		case err := <-terminal.Ended():
			t.Fatalf("top has ended before it showed %s: %v\n%s", what, err, terminal.Text())
		default:
		}
	}
	t.Fatalf("top does not show %s:\n%s", what, terminal.Text())
}

func contains(text string) func(string) bool {
	return func(frame string) bool { return strings.Contains(frame, text) }
}

// ends expects that top ends with success, and leaves the terminal as it was.
func ends(t *testing.T, terminal *tty.Terminal, before string) {
	t.Helper()
	select {
	case err := <-terminal.Ended():
		check(t, err)
	case <-time.After(time.Minute):
		t.Fatalf("top does not end:\n%s", terminal.Text())
	}
	after := ""
	for end := time.Now().Add(time.Minute); after != before && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		after, err = terminal.Mode() // the emulator may still have something to read
		check(t, err)
	}
	if after != before {
		t.Errorf("the terminal was %s, and is now %s", before, after)
	}
}

// figures are the rates in a frame.
type figures struct {
	readAt  time.Time       // of a day
	packets map[int]float64 // by bucket, accepted here
	foreign float64
	share   string // that early drop takes
}

var (
	readAt     = regexp.MustCompile(`read at (\S+) UTC`)
	foreignOne = regexp.MustCompile(`foreign (\d+)/s .*(?:drops (\S+)|early drop off)`)
	bucketRow  = regexp.MustCompile(`(?m)^ *(\d+)  .*  owned +- +(\d+) +\S+ \S+$`)
)

// figuresOf reads a frame; false if it is not a whole one with rates.
func figuresOf(frame string) (figures, bool) {
	f := figures{packets: map[int]float64{}}
	at, foreign, rows := readAt.FindStringSubmatch(frame), foreignOne.FindStringSubmatch(frame), bucketRow.FindAllStringSubmatch(frame, -1)
	if at == nil || foreign == nil || rows == nil {
		return f, false
	}
	f.share = foreign[2]
	f.readAt, _ = time.Parse(time.TimeOnly, at[1])
	f.foreign, _ = strconv.ParseFloat(foreign[1], 64)
	for _, row := range rows {
		bucket, _ := strconv.Atoi(row[1])
		f.packets[bucket], _ = strconv.ParseFloat(row[2], 64)
	}
	return f, true
}

// next waits for the figures of the next reading.
func next(t *testing.T, terminal *tty.Terminal, before figures) figures {
	t.Helper()
	var now figures
	shows(t, terminal, "another reading than that of "+before.readAt.Format(time.TimeOnly), func(frame string) bool {
		f, whole := figuresOf(frame)
		now = f
		return whole && !f.readAt.Equal(before.readAt)
	})
	return now
}

func (f figures) isQuiet() bool {
	all := f.foreign
	for _, packets := range f.packets {
		all += packets
	}
	return all == 0
}

// The figures are those of the wire, and of status: packets that arrive between two readings are rates in the second one, all with the
// same time between.
func TestTopShowsWhatArrives(t *testing.T) {
	s := newSite(t, lan.Options{Nodes: 2}, 4, webIP())
	check(t, s.startAll(0, 1, 0, 1))
	check(t, awaitOwnNeighbour(t, s))
	terminal := topOn(t, s, 1, 100, 24, "--interval", "6") // long, because a frame has whole seconds
	// Packets that arrive while top reads are in two readings, and a test that stands still does not see each.
	const attempts = 4
	for range attempts {
		quiet := next(t, terminal, figures{})
		for !quiet.isQuiet() {
			quiet = next(t, terminal, quiet)
		}
		before := foreignOf(t, s, 1)
		r := probe(t, s.Network, lan.Traffic{Target: shared, Sources: s.Sources(2000), Protos: []lan.Proto{lan.ICMP}})
		check(t, r.ExactlyOnce(s.owner))
		sent, foreign := map[int]float64{}, 0.0
		for _, e := range r.Exchanges {
			if bucket := s.bucket(e.Flow); s.at[bucket] == 1 {
				sent[bucket] += float64(e.Sent)
			} else {
				foreign += float64(e.Sent)
			}
		}
		after := foreignOf(t, s, 1)
		busy := quiet
		for busy.isQuiet() {
			quiet, busy = busy, next(t, terminal, busy)
		}
		elapsed := foreign / busy.foreign
		shown := (busy.readAt.Sub(quiet.readAt) + 24*time.Hour) % (24 * time.Hour) // whole seconds
		if !next(t, terminal, busy).isQuiet() || math.Abs(elapsed-shown.Seconds()) > 1.1 {
			continue
		}
		same := func(what string, shown, sent float64) {
			if math.Abs(shown*elapsed-sent) > 2*elapsed { // both rates are rounded to whole packets, in different directions at worst
				t.Errorf("%s: %.0f packets were sent within %.2f s, and the frame shows %.0f/s", what, sent, elapsed, shown)
			}
		}
		for bucket, packets := range sent {
			same(fmt.Sprintf("bucket %d", bucket), busy.packets[bucket], packets)
			counted := after.Buckets[bucket].Traffic.Packets - before.Buckets[bucket].Traffic.Packets
			if float64(counted) != packets {
				t.Errorf("bucket %d: %.0f packets were sent, status has counted %d", bucket, packets, counted)
			}
		}
		if len(busy.packets) != len(sent) || float64(after.Foreign.Packets-before.Foreign.Packets) != foreign {
			t.Errorf("the frame shows %v; of %.0f foreign packets, status has counted %d", busy, foreign,
				after.Foreign.Packets-before.Foreign.Packets)
		}
		if after.EarlyDropped != nil {
			early := float64(after.EarlyDropped.Packets - before.EarlyDropped.Packets)
			if want := fmt.Sprintf("%.1f%%", 100*early/foreign); busy.share != want {
				t.Errorf("early drop has dropped %s, the frame shows %s", want, busy.share)
			}
		}
		return
	}
	t.Errorf("in %d attempts, no burst had its rate in one reading:\n%s", attempts, terminal.Text())
}

// Keys and signals end it, sizes do not, and the terminal is as before.
func TestTopAndItsTerminal(t *testing.T) {
	s := newSite(t, lan.Options{Nodes: 1}, 64, webIP())
	check(t, s.startAll(make([]int, 64)...))
	const wholeTable = "BUCKET  OWNER"
	untouched, err := tty.New(80, 24)
	check(t, err)
	before, err := untouched.Mode()
	check(t, err)
	check(t, untouched.Close())
	for name, end := range map[string]func(*tty.Terminal) error{
		"q":       func(terminal *tty.Terminal) error { return terminal.Type("q") },
		"Ctrl-C":  func(terminal *tty.Terminal) error { return terminal.Type("\x03") },
		"SIGTERM": func(terminal *tty.Terminal) error { return terminal.Signal(syscall.SIGTERM) },
		"SIGHUP":  func(terminal *tty.Terminal) error { return terminal.Signal(syscall.SIGHUP) },
		"SIGINT":  func(terminal *tty.Terminal) error { return terminal.Signal(syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			terminal := topOn(t, s, 0, 80, 24)
			shows(t, terminal, "the table", contains(wholeTable))
			if raw, err := terminal.Mode(); err != nil || raw == before {
				t.Errorf("top has not changed the terminal: %s, %v", raw, err)
			}
			check(t, end(terminal))
			ends(t, terminal, before)
		})
	}

	for variable, isColoured := range map[string]bool{"NO_COLOR=": true, "NO_COLOR=1": false} { //nolint:misspell // the name of no-color.org
		t.Run(variable, func(t *testing.T) {
			terminal := topWith(t, s, 0, 80, 24, append(slices.Clone(xterm), variable))
			shows(t, terminal, "the table", contains(wholeTable))
			if terminal.HasColour() != isColoured {
				t.Errorf("coloured: %t\n%s", terminal.HasColour(), terminal.Text())
			}
			check(t, terminal.Type("q"))
			ends(t, terminal, before)
		})
	}

	terminal := topOn(t, s, 0, 80, 24)
	shows(t, terminal, "the table", contains(wholeTable))
	check(t, terminal.Type("\x1b[F")) // End
	shows(t, terminal, "the last bucket", contains("-64 of 64"))
	check(t, terminal.Type("s"))
	shows(t, terminal, "the order", contains("s sort by bucket"))
	check(t, terminal.Resize(20, 5))
	shows(t, terminal, "that there is no place", contains("needs at least"))
	for range 300 {
		check(t, terminal.Resize(1+rand.IntN(200), 1+rand.IntN(80)))
	}
	check(t, terminal.Resize(80, 24))
	shows(t, terminal, "the table again", func(frame string) bool {
		return strings.Contains(frame, wholeTable) && strings.Contains(frame, "1-") && strings.Contains(frame, "s sort by bucket")
	})
	check(t, terminal.Type("q"))
	ends(t, terminal, before)
}

// Without a terminal it says how to do without.
func TestTopWithoutTerminal(t *testing.T) {
	s := newSite(t, lan.Options{Nodes: 1}, 2, webIP())
	check(t, s.startAll(0, 0))
	top := func(environment []string, arguments ...string) lan.Result {
		return s.Nodes[0].Run(t.Context(), environment, append([]string{s.agents[0].Program, "top"}, arguments...)...)
	}
	r := top(xterm)
	if err := status(r, ocf.ErrArgs); err != nil || !strings.Contains(r.Stderr, "--once") {
		t.Errorf("%v: %s", err, r.Stderr)
	}
	r = top(xterm, "--interval", "0", "nonsense")
	if err := status(r, ocf.ErrArgs); err != nil || !strings.Contains(r.Stderr, "--interval 0") || !strings.Contains(r.Stderr, "nonsense") {
		t.Errorf("%v: %s", err, r.Stderr)
	}
	r = top(lan.ToolPath, "--once", shared.String())
	if err := status(r, ocf.Success); err != nil || strings.Contains(r.Stdout, "\x1b") || !strings.Contains(r.Stdout, "PACKETS/S") {
		t.Errorf("%v: %s%s", err, r.Stdout, r.Stderr)
	}
	if f, whole := figuresOf(r.Stdout); !whole || len(f.packets) != 2 {
		t.Errorf("the frame has no rates:\n%s", r.Stdout)
	}
	dumb, err := tty.New(200, 24)
	check(t, err)
	t.Cleanup(func() { check(t, dumb.Close()) })
	command := exec.CommandContext(t.Context(), s.agents[0].Program, "top")
	command.Env = append([]string{"TERM=dumb"}, lan.ToolPath...)
	check(t, dumb.Start(command, s.Nodes[0].Do))
	if err := <-dumb.Ended(); command.ProcessState.ExitCode() != int(ocf.ErrArgs) {
		t.Errorf("TERM=dumb: %v\n%s", err, dumb.Text())
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(dumb.Text(), "--once"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("TERM=dumb:\n%s", dumb.Text())
		}
	}
}
