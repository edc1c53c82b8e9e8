// Package top is the view of all buckets that is read again and again: a model, and its frame of any size.
package top

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"ocf-clusterip/internal/operator"
)

// Model is what the view shows, as Bubble Tea wants it: values that a message turns into other values.
type Model struct {
	read     func() (operator.Status, error)
	interval time.Duration
	colour   bool
	width    int
	height   int  // in lines
	all      bool // no terminal: as many lines as are needed

	status  operator.Status // the last one that could be read, with rates since the one before
	err     error           // why the last reading failed; nil: it did not
	now     time.Time
	reading bool      // in progress
	due     time.Time // when the next reading starts, unless one is in progress then
	history history
	byLoad  bool // the order of the buckets
	offset  int  // the first bucket that is shown
}

// New returns the view of a first reading. Those that follow come from read, after each interval.
func New(first operator.Status, read func() (operator.Status, error), interval time.Duration, colour bool) Model {
	m := Model{read: read, interval: interval, colour: colour, due: first.Time.Add(interval)}
	return m.add(reading{first, nil, first.Time})
}

// tick has the time. (In a struct, so that nobody else's message is one.)
type tick struct{ now time.Time }

// reading is what was read.
type reading struct {
	status operator.Status
	err    error
	ended  time.Time
}

// nextTick comes in a second, however long the interval is: the age of what is shown must be true, also while a reading hangs.
func (m Model) nextTick() tea.Cmd {
	return tea.Tick(min(m.interval, time.Second), func(now time.Time) tea.Msg { return tick{now} })
}

func (m Model) nextReading() tea.Cmd {
	return func() tea.Msg {
		status, err := m.read()
		return reading{status, err, time.Now()}
	}
}

// Init implements tea.Model.
func (m Model) Init() tea.Cmd { return m.nextTick() }

// Update implements tea.Model. Readings do not overlap: a slow one takes the place of the next.
func (m Model) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case tick:
		m.now = message.now
		if m.reading || m.now.Before(m.due) {
			return m.scroll(0), m.nextTick()
		}
		m.reading, m.due = true, m.now.Add(m.interval)
		return m, tea.Batch(m.nextTick(), m.nextReading())
	case reading:
		m.reading = false
		m = m.add(message)
	case tea.KeyPressMsg:
		return m.press(message.String())
	}
	return m.scroll(0), nil
}

// press does what a key is for.
func (m Model) press(key string) (tea.Model, tea.Cmd) {
	page := max(m.layOut().lines, 1)
	switch key {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "s":
		m.byLoad, m.offset = !m.byLoad, 0
	case "up", "k":
		m = m.scroll(-1)
	case "down", "j":
		m = m.scroll(1)
	case "pgup":
		m = m.scroll(-page)
	case "pgdown":
		m = m.scroll(page)
	case "home":
		m.offset = 0
	case "end":
		m = m.scroll(len(m.rows()))
	}
	return m, nil
}

// scroll moves the buckets that are shown, but not beyond the last.
func (m Model) scroll(by int) Model {
	m.offset = max(0, min(m.offset+by, len(m.rows())-m.layOut().lines))
	return m
}

// add adds a reading. One that failed leaves the last good one.
func (m Model) add(r reading) Model {
	m.now, m.err = r.ended, r.err
	if r.err == nil {
		r.status.Since(m.status)
		m.status, m.history = r.status, m.history.add(r.status)
	}
	return m
}

// Once returns all of a second reading as plain text.
func (m Model) Once(second operator.Status, width int) string {
	m = m.add(reading{second, nil, second.Time})
	m.width, m.all, m.colour = width, true, false
	return m.text()
}

// View implements tea.Model.
func (m Model) View() tea.View {
	view := tea.NewView(m.text())
	view.AltScreen = true
	return view
}
