package plan

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/beevik/etree"
)

// onDarkPages begins the CSS for dark pages.
const onDarkPages = "@media (prefers-color-scheme: dark) {" //nolint:misspell // CSS's own word

// pictureStyle is for light and dark pages.
const pictureStyle = `
svg { font: 13px system-ui, "Liberation Sans", sans-serif; }
.paper { fill: #ffffff; stroke: #d0d7de; }
text { fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.small { font-size: 11px; fill: #59636e; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.even { stroke: #1f2328; stroke-width: 1.5; stroke-dasharray: 6 4; }
.now { fill: #0969da; }
.fail1 { fill: #e69f00; }
.fail2 { fill: #d55e00; }
.fail3 { fill: #cc79a7; }
.fail4 { fill: #8c6bb1; }
` + onDarkPages + `
  .paper { fill: #0d1117; stroke: #3d444d; }
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .grid { stroke: #2a313c; }
  .even { stroke: #f0f6fc; }
  .now { fill: #4493f8; }
}
`

// The picture's measures, in pixels.
const (
	pictureWidth = 860.0
	margin       = 24.0
	axisWidth    = 44.0 // for the numbers on the left of a chart
	chartHeight  = 190.0
	headHeight   = 74.0 // above the first chart
	legendHeight = 30.0
	footHeight   = 46.0 // below a chart: names
)

// WritePicture draws the plan as SVG: the load of each node now and in the worst failures, and the requests of each bucket.
func (p *Plan) WritePicture(to io.Writer) error {
	height := headHeight + legendHeight + chartHeight + footHeight + margin/2
	if p.knowsRequests() {
		height += legendHeight + chartHeight + footHeight
	}
	d := newDrawing(pictureWidth, height)
	title := fmt.Sprintf("%s, %s", Counted(p.nodes, "node"), Counted(p.Buckets, "bucket"))
	of := "buckets"
	if p.knowsRequests() {
		title += fmt.Sprintf(": %s by %s", Counted(int(p.Clients.Requests), "request"), Counted(p.Clients.IPv4+p.Clients.IPv6, "client"))
		of = "requests"
	}
	d.svg.CreateElement("title").SetText(title)
	d.text(margin, 36, title, "title")
	if len(p.Outcomes) > 1 {
		d.text(margin, 58, p.worst(), "small")
	}
	p.drawNodes(d, headHeight, of)
	if p.knowsRequests() {
		p.drawBuckets(d, headHeight+legendHeight+chartHeight+footHeight)
	}
	d.document.Indent(1)
	_, err := d.document.WriteTo(to)
	return err
}

// drawNodes draws a bar for each node, with a part for each number of failed nodes.
func (p *Plan) drawNodes(d *drawing, top float64, of string) {
	heights := make([][]float64, len(p.worstOfNode)) // in even shares of all nodes
	most := 1.0
	for failed, shares := range p.worstOfNode {
		heights[failed] = make([]float64, p.nodes)
		for node, share := range shares {
			heights[failed][node] = share * float64(p.nodes)
			if failed > 0 {
				heights[failed][node] = max(heights[failed][node], heights[failed-1][node])
			}
			most = max(most, heights[failed][node])
		}
	}
	d.text(margin, top+14, "Share of each node in all "+of+", in even shares", "")
	legend := []string{"now", "at worst when 1 node fails", "2 nodes fail", "3 nodes fail", "4 nodes fail"}[:len(heights)]
	d.legend(top+14, legend)
	c := d.chart(top+legendHeight, most, p.nodes)
	for node, name := range p.Nodes {
		below, about := 0.0, name+":"
		for failed := range heights {
			height := heights[failed][node]
			about += fmt.Sprintf(" %s %s;", legend[failed], times(height))
			c.bar(node, below, height, class(failed))
			below = height
		}
		c.about(about[:len(about)-1])
	}
	c.line(1, "even share")
	c.names(p.Nodes)
}

// drawBuckets draws a bar for the requests of each bucket.
func (p *Plan) drawBuckets(d *drawing, top float64) {
	weights := requestsOf(p.Clients.ByBucket)
	average := float64(p.Clients.Requests) / float64(len(weights))
	d.text(margin, top+14, "Requests of each bucket, in those of an average one", "")
	c := d.chart(top+legendHeight, max(1, float64(slices.Max(weights))/average), len(weights))
	names := make([]string, len(weights))
	for bucket, weight := range weights {
		names[bucket] = strconv.Itoa(bucket)
		c.bar(bucket, 0, float64(weight)/average, class(0))
		c.about(fmt.Sprintf("bucket %d on %s: %s, %s", bucket, p.Placement[bucket], Counted(int(weight), "request"),
			Counted(p.Clients.ByBucket[bucket].Clients, "client")))
	}
	c.line(1, "average")
	c.names(names)
}

// class returns the style of the part for a number of failed nodes.
func class(failed int) string {
	if failed == 0 {
		return "now"
	}
	return fmt.Sprintf("fail%d", failed)
}

// A drawing is an SVG document.
type drawing struct {
	document *etree.Document
	svg      *etree.Element
}

func newDrawing(width, height float64) *drawing {
	d := &drawing{document: etree.NewDocument()}
	d.svg = d.document.CreateElement("svg")
	d.set(d.svg, "xmlns", "http://www.w3.org/2000/svg", "width", width, "height", height,
		"viewBox", fmt.Sprintf("0 0 %g %g", width, height), "role", "img")
	d.svg.CreateElement("style").SetText(pictureStyle)
	d.add(d.svg, "rect", "x", 0.5, "y", 0.5, "width", width-1, "height", height-1, "rx", 6.0, "class", "paper")
	return d
}

// set sets attributes of an element: names and values alternate.
func (d *drawing) set(e *etree.Element, attributes ...any) {
	for pair := range slices.Chunk(attributes, 2) {
		value := fmt.Sprint(pair[1])
		if number, ok := pair[1].(float64); ok {
			value = strconv.FormatFloat(math.Round(100*number)/100, 'f', -1, 64)
		}
		if value != "" {
			e.CreateAttr(pair[0].(string), value)
		}
	}
}

func (d *drawing) add(to *etree.Element, tag string, attributes ...any) *etree.Element {
	e := to.CreateElement(tag)
	d.set(e, attributes...)
	return e
}

func (d *drawing) text(x, y float64, text, class string) {
	d.add(d.svg, "text", "x", x, "y", y, "class", class).SetText(text)
}

// legend writes the meaning of the colours, from the right.
func (d *drawing) legend(y float64, words []string) {
	const box, letter = 11.0, 6.2 // a small letter's width, about
	x := pictureWidth - margin
	for i, word := range slices.Backward(words) {
		x -= letter * float64(len(word))
		d.text(x, y, word, "small")
		x -= box + 5
		d.add(d.svg, "rect", "x", x, "y", y-box+2, "width", box, "height", box, "rx", 2.0, "class", class(i))
		x -= 16
	}
}

// A chart has bars side by side.
type chart struct {
	*drawing
	top, most float64 // most: the value at the top
	step      float64 // from bar to bar
	group     *etree.Element
}

// chart draws the axis of values from 0 to most.
func (d *drawing) chart(top, most float64, bars int) *chart {
	tick := 0.25
	const lines = 6 // are enough
	for most/tick > lines {
		tick *= 2
	}
	c := &chart{drawing: d, top: top, most: math.Ceil(most/tick) * tick, step: (pictureWidth - 2*margin - axisWidth) / float64(bars)}
	for value := 0.0; value <= c.most; value += tick {
		d.add(d.svg, "line", "x1", margin+axisWidth-8, "x2", pictureWidth-margin, "y1", c.y(value), "y2", c.y(value), "class", "grid")
		d.text(margin+axisWidth-14, c.y(value)+4, strconv.FormatFloat(value, 'f', -1, 64), "small end")
	}
	return c
}

func (c *chart) y(value float64) float64 { return c.top + chartHeight*(1-value/c.most) }

func (c *chart) x(bar int) float64 { return margin + axisWidth + c.step*(float64(bar)+0.5) }

// bar draws a part of a bar.
func (c *chart) bar(bar int, from, to float64, class string) {
	const widest, share = 48.0, 0.76 // of the space there is
	if c.group == nil {
		c.group = c.svg.CreateElement("g")
	}
	width := min(widest, share*c.step)
	if to > from {
		c.add(c.group, "rect", "x", c.x(bar)-width/2, "width", width, "y", c.y(to), "height", c.y(from)-c.y(to), "class", class)
	}
}

// about adds a tooltip to the bar, and ends it.
func (c *chart) about(text string) {
	c.group.CreateElement("title").SetText(text)
	c.group = nil
}

// line marks a value.
func (c *chart) line(value float64, name string) {
	c.add(c.svg, "line", "x1", margin+axisWidth-8, "x2", pictureWidth-margin, "y1", c.y(value), "y2", c.y(value), "class", "even").
		CreateElement("title").SetText(name)
}

// names writes the names below the bars, as many as there is room for.
func (c *chart) names(names []string) {
	const letter = 8.0
	every := 1
	for float64(every)*c.step < letter*float64(len(names[len(names)-1])+1) {
		every *= 2
	}
	for i := 0; i < len(names); i += every {
		c.text(c.x(i), c.top+chartHeight+18, names[i], "small middle")
	}
}
