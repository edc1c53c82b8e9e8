//go:build system

package contrib

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const picture = "../docs/dashboard.svg"

var update = flag.Bool("update", false, "draw the picture of the dashboard anew")

// The picture shows the dashboard as it is: each panel at its place, with what Prometheus answers to its own questions.
func TestPictureShowsTheDashboard(t *testing.T) {
	drawn := drawDashboard(t)
	if *update {
		if err := os.WriteFile(picture, drawn, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, picture) != string(drawn) {
		t.Errorf("%s is not what %s and the metrics look like now: run `make update-dashboard-picture`, and look at it", picture, dashboard)
	}
}

// field is how a panel shows a value.
type field struct {
	Unit     string
	Decimals *int
	Mappings []struct {
		Type    string
		Options json.RawMessage
	}
	Thresholds struct {
		Steps []struct {
			Color string
			Value *float64
		}
	}
	Custom struct {
		LineInterpolation string
		FillOpacity       float64
		Stacking          struct{ Mode string }
	}
}

type mapped struct{ Text, Color string }

// show returns the text and the colour of a value; nil: there is none.
func (f field) show(t *testing.T, value *float64) mapped {
	t.Helper()
	unknown := mapped{"No data", "text"}
	for _, m := range f.Mappings {
		var values map[string]mapped
		var special struct{ Result mapped }
		into := any(&values)
		if m.Type == "special" {
			into = &special
		}
		if err := json.Unmarshal(m.Options, into); err != nil {
			t.Fatal(err)
		}
		switch found, ok := values[number(value)]; {
		case m.Type == "special":
			unknown = special.Result
		case m.Type != "value":
			t.Fatalf("the picture cannot show mappings of type %q", m.Type)
		case ok:
			return found
		}
	}
	if value == nil {
		return unknown
	}
	shown := mapped{Text: number(value)}
	for _, step := range f.Thresholds.Steps {
		if step.Value == nil || *value >= *step.Value {
			shown.Color = step.Color
		}
	}
	return shown
}

func number(value *float64) string {
	if value == nil {
		return ""
	}
	return strconv.FormatFloat(*value, 'f', -1, 64)
}

// with returns a value with its unit.
func with(t *testing.T, unit string, value float64) string {
	t.Helper()
	units, ok := map[string]struct{ small, large string }{"": {}, "pps": {" p/s", " kp/s"}, "Bps": {" B/s", " kB/s"}, "s": {" s", ""}}[unit]
	switch {
	case !ok:
		t.Fatalf("the picture cannot show the unit %q", unit)
	case value >= 1000 && units.large != "":
		return fmt.Sprintf("%.4g%s", value/1000, units.large)
	case value >= 60 && unit == "s":
		return fmt.Sprintf("%.3g min", value/60)
	}
	return fmt.Sprintf("%.4g%s", value, units.small)
}

// Points: Grafana divides its width by 24, and has rows of a height; between panels is a gap.
const (
	columnWidth = 50
	rowHeight   = 19
	gap         = 4
	inset       = 6
)

func rgb(hex uint32) color.Color {
	return color.NRGBA{R: uint8(hex >> 16), G: uint8(hex >> 8), B: uint8(hex), A: 255}
}

var (
	ground, paper, ink, frame = rgb(0xf4f5f5), color.White, rgb(0x24292e), rgb(0xd5d7da)

	// Grafana's names.
	colours = map[string]color.Color{
		"green": rgb(0x73bf69), "orange": rgb(0xff9830), "red": rgb(0xf2495c), "blue": rgb(0x5794f2), "text": ink,
	}
	// The first of its classic palette.
	palette = []color.Color{rgb(0x73bf69), rgb(0xf2cc0c), rgb(0x5794f2), rgb(0xff780a), rgb(0xf2495c), rgb(0xb877d9)}
)

func style(size vg.Length) text.Style {
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	return text.Style{Color: ink, Font: sans, Handler: plot.DefaultTextHandler, YAlign: text.YCenter}
}

// substituteWidth is how much wider a text may become: an SVG is shown with another font where Liberation Sans is not installed.
const substituteWidth = 1.15

// fit shortens a text to a width.
func fit(s text.Style, words string, width vg.Length) string {
	short := []rune(words)
	for len(short) > 0 && s.Width(words)*substituteWidth > width {
		short = short[:len(short)-1]
		words = string(short) + "…"
	}
	return words
}

func fill(c draw.Canvas, colour color.Color) {
	c.SetColor(colour)
	c.Fill(c.Path())
}

// drawer draws panels.
type drawer struct {
	t      *testing.T
	server prometheus
}

func drawDashboard(t *testing.T) []byte {
	t.Helper()
	d := drawer{t, startPrometheus(t)}
	rows := 0
	for _, p := range panels(t) {
		rows = max(rows, p.GridPos.Y+p.GridPos.H)
	}
	image := vgsvg.New(24*columnWidth, vg.Length(rows)*rowHeight)
	c := draw.New(image)
	fill(c, ground)
	for _, p := range panels(t) {
		left, top := vg.Length(p.GridPos.X)*columnWidth, c.Max.Y-vg.Length(p.GridPos.Y)*rowHeight
		place := c
		place.Min = vg.Point{X: left + gap/2, Y: top - vg.Length(p.GridPos.H)*rowHeight + gap/2}
		place.Max = vg.Point{X: left + vg.Length(p.GridPos.W)*columnWidth - gap/2, Y: top - gap/2}
		d.panel(place, p)
	}
	var written bytes.Buffer
	if _, err := image.WriteTo(&written); err != nil {
		t.Fatal(err)
	}
	return written.Bytes()
}

func (d drawer) panel(c draw.Canvas, p panel) {
	d.t.Helper()
	title := style(9.5)
	if p.Type == "row" {
		c.FillText(title, vg.Point{X: c.Min.X + inset, Y: c.Center().Y}, p.Title)
		return
	}
	fill(c, paper)
	c.StrokeLines(draw.LineStyle{Color: frame, Width: 0.7}, append(slices.Clone(corners(c)), c.Min))
	head := c.Max.Y - inset - title.Font.Size/2
	body := draw.Crop(c, inset, -inset, inset, -inset-title.Font.Size-inset)
	switch p.Type {
	case "stat":
		d.stat(c, p)
	case "timeseries":
		d.timeSeries(body, p)
	case "state-timeline":
		d.stateTimeline(body, p)
	case "table":
		d.table(body, p)
	default:
		d.t.Fatalf("the picture cannot show panels of type %q", p.Type)
	}
	c.FillText(title, vg.Point{X: c.Min.X + inset, Y: head}, fit(title, p.Title, c.Size().X-2*inset))
}

func corners(c draw.Canvas) []vg.Point {
	return []vg.Point{c.Min, {X: c.Min.X, Y: c.Max.Y}, c.Max, {X: c.Max.X, Y: c.Min.Y}}
}

// line is one series with its name in the legend.
type line struct {
	name string
	model.SampleStream
}

func (d drawer) lines(p panel) []line {
	d.t.Helper()
	var lines []line
	label := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, asked := range p.Targets {
		for _, stream := range d.server.query(asked) {
			name := label.ReplaceAllStringFunc(asked.LegendFormat, func(s string) string {
				return string(stream.Metric[model.LabelName(label.FindStringSubmatch(s)[1])])
			})
			lines = append(lines, line{strings.TrimSpace(name), *stream})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.name, b.name) })
	return lines
}

func (d drawer) stat(c draw.Canvas, p panel) {
	d.t.Helper()
	var value *float64
	if answer := d.server.query(p.Targets[0]); len(answer) > 0 {
		value = new(float64(answer[0].Values[0].Value))
	}
	shown := p.FieldConfig.Defaults.show(d.t, value)
	fill(c, colours[shown.Color])
	large := style(20)
	large.XAlign = text.XCenter
	c.FillText(large, vg.Point{X: c.Center().X, Y: c.Center().Y - inset}, shown.Text)
}

// timePlot is a plot with the time below it.
func timePlot() *plot.Plot {
	pl := plot.New()
	pl.BackgroundColor = paper
	pl.X.Min, pl.X.Max = float64(begin.Unix()), float64(end.Unix())
	pl.X.Tick.Marker = plot.TimeTicks{Format: "15:04", Ticker: everyFiveMinutes{}}
	for _, axis := range []*plot.Axis{&pl.X, &pl.Y} {
		axis.Tick.Label.Font = style(8).Font
		axis.Padding, axis.Width, axis.Tick.Width, axis.Tick.Length = 0, 0, 0, 2
		axis.Tick.Label.Color = ink
	}
	pl.X.Padding = 6 // or its first label covers the lowest of Y
	return pl
}

type everyFiveMinutes struct{}

func (everyFiveMinutes) Ticks(from, to float64) []plot.Tick {
	const step = 300
	var ticks []plot.Tick
	for at := from; at <= to; at += step {
		ticks = append(ticks, plot.Tick{Value: at, Label: "the time"}) // TimeTicks writes it
	}
	return ticks
}

func (d drawer) timeSeries(c draw.Canvas, p panel) {
	d.t.Helper()
	f := p.FieldConfig.Defaults
	lines := d.lines(p)
	const legendLine = 11
	c = draw.Crop(c, 0, 0, vg.Length(d.legend(c, lines, legendLine))*legendLine, 0)

	pl := timePlot()
	pl.Y.Min = 0
	sums := map[model.Time]model.SampleValue{}
	curves := make([][]plot.Plotter, len(lines))
	for i, l := range lines {
		points := slices.Clone(l.Values)
		for j, point := range points {
			if f.Custom.Stacking.Mode == "normal" {
				sums[point.Timestamp] += point.Value
				points[j].Value = sums[point.Timestamp]
			}
			pl.Y.Max = math.Max(pl.Y.Max, float64(points[j].Value))
		}
		curves[i] = d.curve(points, f, palette[i%len(palette)])
	}
	for _, curve := range slices.Backward(curves) { // what is stacked stands before what it lies on
		pl.Add(curve...)
	}
	pl.Y.Min, pl.Y.Max = 0, max(pl.Y.Max*1.05, 1)
	pl.Y.Tick.Marker = plot.TickerFunc(func(from, to float64) []plot.Tick {
		ticks := slices.DeleteFunc(plot.DefaultTicks{}.Ticks(from, to), func(tick plot.Tick) bool {
			return tick.IsMinor() || f.Decimals != nil && *f.Decimals == 0 && tick.Value != math.Trunc(tick.Value)
		})
		for i := range ticks {
			ticks[i].Label = with(d.t, f.Unit, ticks[i].Value)
		}
		return ticks
	})
	pl.Draw(c)
}

// curve draws a series, without its gaps.
func (d drawer) curve(points []model.SamplePair, f field, colour color.Color) []plot.Plotter {
	d.t.Helper()
	var parts []plot.Plotter
	for len(points) > 0 {
		n := 1
		for n < len(points) && points[n].Timestamp.Sub(points[n-1].Timestamp) <= interval {
			n++
		}
		part := make(plotter.XYs, n)
		for i, point := range points[:n] {
			part[i] = plotter.XY{X: float64(point.Timestamp.Unix()), Y: float64(point.Value)}
		}
		points = points[n:]
		l, err := plotter.NewLine(part)
		if err != nil {
			d.t.Fatal(err)
		}
		l.Color, l.Width = colour, 1.2
		if f.Custom.LineInterpolation == "stepAfter" {
			l.StepStyle = plotter.PostStep
		}
		if f.Custom.Stacking.Mode == "normal" {
			l.FillColor = lighter(colour, f.Custom.FillOpacity/100)
		}
		parts = append(parts, l)
	}
	return parts
}

// lighter is a colour as it looks on paper; it covers what is behind it.
func lighter(c color.Color, opacity float64) color.Color {
	r, g, b, _ := c.RGBA()
	mix := func(v uint32) uint8 { return uint8(255 - opacity*(255-float64(v>>8))) }
	return color.NRGBA{R: mix(r), G: mix(g), B: mix(b), A: 255}
}

// legend draws the names at the bottom, and returns how many lines they take.
func (drawer) legend(c draw.Canvas, lines []line, height vg.Length) int {
	const dash, between = 10, 8
	names := style(8)
	type place struct {
		x   vg.Length
		row int
	}
	places := make([]place, len(lines))
	var next place
	for i, l := range lines {
		width := dash + 3 + names.Width(l.name)*substituteWidth + between
		if next.x > 0 && next.x+width > c.Size().X {
			next = place{row: next.row + 1}
		}
		places[i] = next
		next.x += width
	}
	for i, at := range places {
		x, y := c.Min.X+at.x, c.Min.Y+height*vg.Length(next.row-at.row)+names.Font.Size/2-2
		c.StrokeLine2(draw.LineStyle{Color: palette[i%len(palette)], Width: 2}, x, y, x+dash, y)
		c.FillText(names, vg.Point{X: x + dash + 3, Y: y}, lines[i].name)
	}
	return next.row + 1
}

func (d drawer) stateTimeline(c draw.Canvas, p panel) {
	d.t.Helper()
	lines := d.lines(p)
	slices.Reverse(lines) // the first is the uppermost
	pl := timePlot()
	pl.Y.Min, pl.Y.Max = -0.5, float64(len(lines))-0.5
	var ticks plot.ConstantTicks
	for i, l := range lines {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: l.name})
	}
	pl.Y.Tick.Marker = ticks
	pl.Add(timeline{d, p, lines})
	pl.Draw(c)
}

// timeline draws a row of boxes for each series.
type timeline struct {
	drawer
	panel
	lines []line
}

func (tl timeline) Plot(c draw.Canvas, pl *plot.Plot) {
	const thickness = 0.4
	x, y := pl.Transforms(&c)
	for row, l := range tl.lines {
		for points := l.Values; len(points) > 0; {
			n := 1
			for n < len(points) && points[n].Value == points[0].Value {
				n++
			}
			to := end.Unix()
			if n < len(points) {
				to = points[n].Timestamp.Unix()
			}
			shown := tl.FieldConfig.Defaults.show(tl.t, new(float64(points[0].Value)))
			box := c
			box.Min = vg.Point{X: x(float64(points[0].Timestamp.Unix())), Y: y(float64(row) - thickness)}
			box.Max = vg.Point{X: x(float64(to)), Y: y(float64(row) + thickness)}
			fill(box, lighter(colours[shown.Color], 0.8))
			if tl.Options.ShowValue != "never" {
				c.FillText(style(8), vg.Point{X: box.Min.X + 4, Y: box.Center().Y}, shown.Text)
			}
			points = points[n:]
		}
	}
}

func (d drawer) table(c draw.Canvas, p panel) {
	d.t.Helper()
	// Rows of different questions with the same labels are one (Grafana's transformation "merge").
	var rows []map[string]string
	for _, asked := range p.Targets {
		for _, stream := range d.server.query(asked) {
			cells := map[string]string{}
			for name, value := range stream.Metric {
				if name != model.MetricNameLabel { // which no table shows
					cells[string(name)] = string(value)
				}
			}
			i := slices.IndexFunc(rows, func(row map[string]string) bool {
				return !slices.ContainsFunc(slices.Collect(maps.Keys(cells)), func(name string) bool { return row[name] != cells[name] })
			})
			if i < 0 {
				rows, i = append(rows, cells), len(rows)
			}
			rows[i][valueColumn(p, asked)] = number(new(float64(stream.Values[0].Value)))
		}
	}
	renamed := map[string]string{}
	for _, change := range p.Transformations {
		for _, row := range rows {
			maps.DeleteFunc(row, func(name, _ string) bool { return change.Options.ExcludeByName[name] })
		}
		maps.Copy(renamed, change.Options.RenameByName)
	}
	names := map[string]bool{}
	for _, row := range rows {
		for name := range row {
			names[name] = true
		}
	}
	columns := slices.Sorted(maps.Keys(names))
	slices.SortStableFunc(rows, func(a, b map[string]string) int { return cmp.Compare(a["instance"], b["instance"]) })
	const height = 15
	width := c.Size().X / vg.Length(len(columns))
	header := style(8)
	header.Color = colours["blue"]
	for i, column := range columns {
		at := vg.Point{X: c.Min.X + vg.Length(i)*width, Y: c.Max.Y - height/2}
		c.FillText(header, at, fit(header, cmp.Or(renamed[column], column), width))
		for _, row := range rows {
			at.Y -= height
			c.FillText(style(8), at, fit(style(8), row[column], width-2))
		}
	}
	for i := range rows {
		y := c.Max.Y - vg.Length(i+1)*height
		c.StrokeLine2(draw.LineStyle{Color: frame, Width: 0.5}, c.Min.X, y, c.Max.X, y)
	}
}

// valueColumn is Grafana's name for the column.
func valueColumn(p panel, asked target) string {
	if len(p.Targets) == 1 {
		return "Value"
	}
	return "Value #" + asked.RefID
}
