package probe

import (
	"cmp"
	"fmt"
	"image/color"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Picture is how to draw a log: time across, and a row for each source that shows by its colour which node answered,
// in all protocols together.
type Picture struct {
	Title string
	// Bucket returns a source's bucket, to draw those of one bucket side by side. nil: by the node that answered first.
	Bucket func(netip.Addr) int
}

// WriteSVG draws the log.
func (l *Log) WriteSVG(w io.Writer, p Picture) error {
	d := l.newDrawing(p)
	c := vgsvg.New(d.width, d.height)
	d.draw(draw.New(c))
	_, err := c.WriteTo(w)
	return err
}

// WritePNG draws the log in 1440 pixels' width.
func (l *Log) WritePNG(w io.Writer, p Picture) error {
	d := l.newDrawing(p)
	c := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(d.width, d.height), vgimg.UseDPI(96))}
	d.draw(draw.New(c))
	_, err := c.WriteTo(w)
	return err
}

// The colours can be told apart by people who confuse some (Okabe and Ito, and then some of Tol's), and from the dark one
// for no answer.
var (
	nodeColours = []color.Color{
		rgb(0x0072b2), rgb(0xe69f00), rgb(0x009e73), rgb(0x56b4e9), rgb(0xf0e442), rgb(0xd55e00),
		rgb(0x332288), rgb(0x999933), rgb(0x882255), rgb(0xddcc77), rgb(0x44aa99), rgb(0xaaaaaa),
	}
	unknownColour   = rgb(0x777777)
	silentColour    = rgb(0x3b0007)
	partlyColour    = rgb(0xf4b6bd)
	duplicateColour = rgb(0xff00ff)
	markColour      = rgb(0x222222)
	rowColour       = color.NRGBA{R: 255, G: 255, B: 255, A: 70}
)

func rgb(hex uint32) color.Color {
	return color.NRGBA{R: uint8(hex >> 16), G: uint8(hex >> 8), B: uint8(hex), A: 255}
}

const (
	silentState    = "no answer"
	partlyState    = "no answer in some protocols"
	duplicateState = "answered twice"
)

// drawing is a picture with the positions of its parts.
type drawing struct {
	plot          *plot.Plot
	legend        []entry
	width, height vg.Length
}

// entry is one of the legend, and its place there.
type entry struct {
	name string
	plot.Thumbnailer
	x    vg.Length
	line int // from the top
}

const (
	legendHeight = 22 // points, of one line
	legendLine   = 14 // each further one
	legendGap    = 14 // between two entries
	swatchWidth  = 14
	labelHeight  = 13
	margin       = 6

	// substituteWidth is how much wider a text may become: an SVG is drawn with another font where Liberation Sans is not installed.
	// DejaVu Sans is up to 1.14 times as wide.
	substituteWidth = 1.15
)

func (l *Log) newDrawing(picture Picture) *drawing {
	rows := l.rows(picture.Bucket)
	d := &drawing{plot: plot.New(), width: 1080}
	p := d.plot
	end := l.Interval.Seconds()
	for _, e := range l.Events {
		at := e.At
		if e.Kind == Lost {
			at = e.asked() // not when it was lost
		}
		end = max(end, at.Seconds())
	}
	marks := l.Of(Mark)
	// What is beside the rows: the title, the marks' texts, the axis, the legend.
	rowHeight := min(max(560/vg.Length(max(len(rows), 1)), 1.5), 14)
	labels := layOut(marks, end, d.width-110)
	levels := 0
	for _, label := range labels {
		levels = max(levels, label.level+1)
	}
	head := vg.Length(levels)*labelHeight + margin
	d.height = rowHeight*vg.Length(max(len(rows), 1)) + head + legendHeight + 92

	summary := l.Summary()
	p.Title.Text = picture.Title
	if p.Title.Text == "" {
		p.Title.Text = fmt.Sprintf("Who answers for %s? %d clients ask, each of them every %s%s", l.Target, len(rows), l.Interval, by(summary))
	}
	p.Title.Text += "\n" + summary.line()
	p.Title.TextStyle.Font = sans(12)
	p.Title.Padding = 4
	p.X.Min, p.X.Max = 0, end
	p.X.Label.Text = "seconds"
	p.Y.Min, p.Y.Max = 0, float64(len(rows))+float64(head/rowHeight)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = sans(10), sans(9)
		axis.Padding = 0
	}
	p.X.Tick.Marker = secondTicks{}
	p.Y.Width, p.Y.Tick.Width, p.Y.Tick.Length = 0, 0, 3
	p.Y.Tick.Marker = groupTicks(rows, rowHeight)

	d.addRuns(l, rows)
	p.Add(separators(rows, rowHeight))
	p.Add(labels)
	d.addSigns(l, rows, rowHeight)
	d.height += d.layOutLegend()
	return d
}

// layOutLegend places the entries side by side, in as many lines as they need, and returns the height of all lines but the first.
func (d *drawing) layOutLegend() vg.Length {
	style := text.Style{Font: sans(10), Handler: plot.DefaultTextHandler}
	var x vg.Length
	line := 0
	for i := range d.legend {
		e := &d.legend[i]
		width := swatchWidth + style.Width(" "+e.name)*substituteWidth
		if x > 0 && x+width > d.width-2*margin {
			x, line = 0, line+1
		}
		e.x, e.line = x, line
		x += width + legendGap
	}
	return vg.Length(line) * legendLine
}

// by lists the protocols.
func by(s *Summary) string {
	text := ""
	for i, p := range slices.Sorted(maps.Keys(s.Protos)) {
		if text += ", "; i == 0 {
			text = " by "
		}
		text += p.String()
	}
	return text
}

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// draw puts the plot above its legend.
func (d *drawing) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(box(c.Min.X, c.Max.X, c.Min.Y, c.Max.Y))
	c = draw.Crop(c, margin, -2*margin, margin, -margin)
	last := 0
	for _, e := range d.legend {
		last = max(last, e.line)
	}
	d.plot.Draw(draw.Crop(c, 0, 0, legendHeight+vg.Length(last)*legendLine, 0))
	for _, e := range d.legend {
		legend := plot.NewLegend()
		legend.Left, legend.ThumbnailWidth, legend.TextStyle.Font = true, swatchWidth, sans(10)
		legend.Add(e.name, e)
		legend.Draw(draw.Crop(c, e.x, 0, vg.Length(last-e.line)*legendLine, 0))
	}
}

func box(left, right, bottom, top vg.Length) vg.Path {
	var p vg.Path
	p.Move(vg.Point{X: left, Y: bottom})
	p.Line(vg.Point{X: right, Y: bottom})
	p.Line(vg.Point{X: right, Y: top})
	p.Line(vg.Point{X: left, Y: top})
	p.Close()
	return p
}

// row is a source, from the top.
type row struct {
	source netip.Addr
	first  string // node
	bucket int
	cells  []cell // one for each interval
}

// cell is what happened to a source's questions of one interval.
type cell struct {
	node             string // the last that answered
	answers, failed  int
	duplicate, asked bool
	at               time.Duration // when the first was asked
}

func (c cell) state() string {
	switch {
	case c.duplicate:
		return duplicateState
	case c.failed > 0 && c.answers == 0:
		return silentState
	case c.failed > 0:
		return partlyState
	default:
		return c.node
	}
}

// rows returns the sources in the order to draw.
func (l *Log) rows(bucket func(netip.Addr) int) []*row {
	byName := map[netip.Addr]*row{}
	var rows []*row
	for _, source := range l.Sources() {
		r := &row{source: source}
		if bucket != nil {
			r.bucket = bucket(source)
		}
		byName[source] = r
		rows = append(rows, r)
	}
	stalled := map[Event]bool{}
	for _, e := range l.Events {
		r := byName[e.Source]
		if r == nil || e.Number == 0 {
			continue
		}
		switch e.Kind {
		case Stalled:
			stalled[Event{Source: e.Source, Number: e.Number}] = true
		case Answer:
			if r.first == "" {
				r.first = e.Node
			}
			if e.Proto == Stream && stalled[Event{Source: e.Source, Number: e.Number}] {
				l.fail(r, e)
			}
			c := r.cell(e.asked(), l.Interval)
			c.answers++
			// A stream may stay with the old owner of a bucket, which drains.
			if e.Proto != Stream || c.node == "" {
				c.node = e.Node
			}
		case Lost, Refused:
			l.fail(r, e)
		case Duplicate:
			r.cell(e.asked(), l.Interval).duplicate = true
		}
	}
	// Buckets of one node side by side, by the first node that answered any source of the bucket.
	owner := map[int]string{}
	for _, r := range rows {
		if bucket != nil && r.first != "" && owner[r.bucket] == "" {
			owner[r.bucket] = r.first
		}
	}
	slices.SortFunc(rows, func(a, b *row) int {
		if bucket == nil {
			return cmp.Or(cmp.Compare(a.first, b.first), a.source.Compare(b.source))
		}
		return cmp.Or(cmp.Compare(owner[a.bucket], owner[b.bucket]), cmp.Compare(a.bucket, b.bucket), a.source.Compare(b.source))
	})
	for _, r := range rows {
		r.first = "first " + cmp.Or(r.first, "no node")
		if bucket != nil {
			r.first = fmt.Sprintf("bucket %d", r.bucket)
		}
	}
	return rows
}

// fail shows a question without answer; one of a stream keeps the others from being asked.
func (l *Log) fail(r *row, e Event) {
	to := e.asked()
	if e.Proto == Stream {
		to = e.At
	}
	for at := e.asked(); at <= to; at += l.Interval {
		r.cell(at, l.Interval).failed++
	}
}

func (r *row) cell(at, interval time.Duration) *cell {
	i := int(max(at, 0) / interval)
	if missing := i + 1 - len(r.cells); missing > 0 {
		r.cells = append(r.cells, make([]cell, missing)...)
	}
	c := &r.cells[i]
	if !c.asked || at < c.at {
		c.asked, c.at = true, at
	}
	return c
}

// run is cells of the same state side by side.
type run struct {
	row      int
	from, to float64 // seconds
}

// runs returns those of each state.
func runs(rows []*row, interval time.Duration) map[string][]run {
	all := map[string][]run{}
	// A late tick may have put two questions into one interval, and none into the next: no gap.
	const reach = 3
	for i, r := range rows {
		var state string
		var from, last time.Duration
		end := func(to time.Duration) {
			if state != "" {
				all[state] = append(all[state], run{i, from.Seconds(), to.Seconds()})
			}
		}
		for _, c := range r.cells {
			if !c.asked {
				continue
			}
			if c.at-last > reach*interval {
				end(last + interval)
				state = ""
			}
			if s := c.state(); s != state {
				end(c.at)
				state, from = s, c.at
			}
			last = c.at
		}
		end(last + interval)
	}
	return all
}

// addRuns draws who answered, and notes the legend.
func (d *drawing) addRuns(l *Log, rows []*row) {
	all := runs(rows, l.Interval)
	var nodes []string
	for _, e := range l.Events {
		if e.Kind == Answer && e.Node != Unknown && !slices.Contains(nodes, e.Node) {
			nodes = append(nodes, e.Node)
		}
	}
	slices.Sort(nodes)
	add := func(state string, colour color.Color, least vg.Length) {
		b := bars{all[state], len(rows), colour, least}
		if len(b.runs) > 0 {
			d.plot.Add(b)
		}
		if len(b.runs) > 0 || state == silentState {
			d.legend = append(d.legend, entry{name: state, Thumbnailer: b})
		}
	}
	for i, node := range nodes {
		add(node, nodeColours[i%len(nodeColours)], 0)
	}
	add(Unknown, unknownColour, 0)
	// On top and never too narrow to be seen.
	add(partlyState, partlyColour, 1)
	add(silentState, silentColour, 1.2)
	add(duplicateState, duplicateColour, 2)
}

// bars draws all runs of one colour as one path, which keeps an SVG small.
type bars struct {
	runs   []run
	rows   int
	colour color.Color
	least  vg.Length // width
}

func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var path vg.Path
	for _, r := range b.runs {
		left, right := x(r.from), min(x(r.to), c.Max.X)
		right = max(right, left+b.least)
		path = append(path, box(left, right, y(float64(b.rows-r.row-1)), y(float64(b.rows-r.row)))...)
	}
	c.SetColor(b.colour)
	c.Fill(path)
}

// Thumbnail draws the legend's box.
func (b bars) Thumbnail(c *draw.Canvas) {
	c.SetColor(b.colour)
	c.Fill(box(c.Min.X, c.Max.X, c.Min.Y, c.Max.Y))
}

// separators are the limits of the groups and, where there is room, of the rows.
func separators(rows []*row, rowHeight vg.Length) plot.Plotter {
	return plotFunc(func(c draw.Canvas, p *plot.Plot) {
		_, y := p.Transforms(&c)
		var groups, others vg.Path
		for i := 1; i < len(rows); i++ {
			path := &others
			if rows[i].first != rows[i-1].first {
				path = &groups
			}
			at := y(float64(len(rows) - i))
			path.Move(vg.Point{X: c.Min.X, Y: at})
			path.Line(vg.Point{X: c.Max.X, Y: at})
		}
		if rowHeight >= 5 {
			c.SetLineStyle(draw.LineStyle{Color: rowColour, Width: 0.6})
			c.Stroke(others)
		}
		c.SetLineStyle(draw.LineStyle{Color: color.White, Width: 1.4})
		c.Stroke(groups)
	})
}

type plotFunc func(draw.Canvas, *plot.Plot)

func (f plotFunc) Plot(c draw.Canvas, p *plot.Plot) { f(c, p) }

// groupTicks names the groups, unless they stand too close.
func groupTicks(rows []*row, rowHeight vg.Length) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	last := float64(len(rows)) + 100
	for i := 0; i < len(rows); {
		j := i
		for j < len(rows) && rows[j].first == rows[i].first {
			j++
		}
		if middle := float64(len(rows)) - float64(i+j)/2; vg.Length(last-middle)*rowHeight >= 10 {
			ticks = append(ticks, plot.Tick{Value: middle, Label: rows[i].first})
			last = middle
		}
		i = j
	}
	return ticks
}

// secondTicks are the default ones, without those that are no whole seconds.
type secondTicks struct{}

func (secondTicks) Ticks(from, to float64) []plot.Tick {
	step := 1.0
	for _, s := range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600} {
		if step = s; (to-from)/s <= 16 {
			break
		}
	}
	var ticks []plot.Tick
	for at := 0.0; at <= to; at += step {
		ticks = append(ticks, plot.Tick{Value: at, Label: fmt.Sprintf("%g", at)})
	}
	return ticks
}

// label is the text of a mark, in one of several lines above the rows.
type label struct {
	at    float64 // seconds
	text  string
	level int // from below
	left  bool
}

type labels []label

// layOut finds a line for each text, so that none covers another. The later ones get the lower lines: so the strokes that
// rise to the texts pass none.
func layOut(marks []Event, end float64, width vg.Length) labels {
	style := labelStyle()
	list := make(labels, len(marks))
	type span struct{ from, to vg.Length }
	spans := make([]span, len(marks))
	for i := len(marks) - 1; i >= 0; i-- {
		l := label{at: marks[i].At.Seconds(), text: marks[i].Text}
		x, size := vg.Length(l.at/end)*width, style.Width(l.text)+12
		spans[i] = span{x, x + size}
		if l.left = x+size > width; l.left {
			spans[i] = span{x - size, x}
		}
		for j := i + 1; j < len(marks); j++ {
			if spans[i].from < spans[j].to && spans[j].from < spans[i].to {
				l.level = max(l.level, list[j].level+1)
			}
		}
		list[i] = l
	}
	return list
}

func labelStyle() text.Style {
	return text.Style{Color: markColour, Font: sans(9.5), Handler: plot.DefaultTextHandler, YAlign: text.YCenter}
}

// Plot draws each event's line, and its text above the rows.
func (l labels) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	levels := 0
	for _, label := range l {
		levels = max(levels, label.level+1)
	}
	bottom := c.Max.Y - vg.Length(levels)*labelHeight
	for _, label := range l {
		at, top := x(label.at), bottom+vg.Length(label.level+1)*labelHeight-2
		c.StrokeLine2(draw.LineStyle{Color: color.White, Width: 2.4}, at, c.Min.Y, at, bottom-margin)
		c.StrokeLine2(draw.LineStyle{Color: markColour, Width: 1}, at, c.Min.Y, at, top)
	}
	for _, label := range l {
		from := vg.Point{X: x(label.at) + 4, Y: bottom + vg.Length(label.level)*labelHeight + labelHeight/2 - 1}
		style := labelStyle()
		width := style.Width(label.text)
		if label.left {
			from.X -= width + 8
		}
		c.SetColor(color.White)
		c.Fill(box(from.X-1, from.X+width+1, from.Y-5, from.Y+5))
		c.FillText(style, from, label.text)
	}
}

// addSigns draws what is short and must not be overlooked.
func (d *drawing) addSigns(l *Log, rows []*row, rowHeight vg.Length) {
	place := map[netip.Addr]int{}
	for i, r := range rows {
		place[r.source] = i
	}
	broken := signs{colour: color.Black, size: min(max(rowHeight*0.4, 2), 3.5), shape: draw.CrossGlyph{}, rows: len(rows)}
	wrong := signs{colour: duplicateColour, size: 5.5, shape: draw.PyramidGlyph{}, rows: len(rows)}
	twice := signs{colour: duplicateColour, size: 5, shape: draw.CircleGlyph{}, rows: len(rows)}
	for _, e := range l.Events {
		i, known := place[e.Source]
		switch {
		case e.Kind == Broken && known:
			broken.add(e.At.Seconds(), i)
		case e.Kind == WrongMAC:
			wrong.add(e.At.Seconds(), max(i, 0))
		}
	}
	for _, r := range runs(rows, l.Interval)[duplicateState] {
		twice.add(r.from, r.row)
	}
	for _, s := range []struct {
		signs *signs
		name  string
	}{{&broken, "connection broken"}, {&wrong, "wrong MAC"}, {&twice, duplicateState}} {
		if len(s.signs.at) == 0 {
			continue
		}
		d.plot.Add(s.signs)
		if s.signs != &twice { // it has a colour
			d.legend = append(d.legend, entry{name: s.name, Thumbnailer: s.signs})
		}
	}
}

// signs are glyphs of one kind, fewer than one for each two pixels of a row.
type signs struct {
	at     map[[2]int]struct{ x, y float64 } // by place
	colour color.Color
	size   vg.Length
	shape  draw.GlyphDrawer
	rows   int
}

func (s *signs) add(at float64, row int) {
	if s.at == nil {
		s.at = map[[2]int]struct{ x, y float64 }{}
	}
	s.at[[2]int{int(at * 4), row}] = struct{ x, y float64 }{at, float64(s.rows-row) - 0.5}
}

// Plot draws them on a white ground, so that they are seen on any colour.
func (s *signs) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, at := range s.at {
		s.draw(&c, vg.Point{X: x(at.x), Y: y(at.y)})
	}
}

func (s *signs) draw(c *draw.Canvas, at vg.Point) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: color.White, Radius: s.size + 1.2, Shape: s.shape}, at)
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: s.colour, Radius: s.size, Shape: s.shape}, at)
}

// Thumbnail draws the legend's sign.
func (s *signs) Thumbnail(c *draw.Canvas) { s.draw(c, c.Center()) }
