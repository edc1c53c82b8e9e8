package probe

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// To look at the pictures: go test ./tests/probe -run Picture -pictures FOLDER.
var pictures = flag.String("pictures", "", "folder to write the tests' pictures to")

// aCrash is what a cluster's log might look like: node2 dies at a sixth of the time, others start its buckets, and it
// is back at a half. Here and there a packet is lost.
func aCrash(sources int, length time.Duration) *handMade {
	l := newHandMade()
	random := rand.New(rand.NewPCG(1, 2))
	names := []string{"node1", "node2", "node3"}
	dies, back := length/6, length/2
	for i := range sources {
		source := client(i)
		home := bucketOf(source) % 3
		heir := names[bucketOf(source)/3%2*2]
		over := dies + 3900*ms + time.Duration(bucketOf(source))*60*ms
		for _, p := range Protos() {
			for at := time.Duration(i) * l.Interval / time.Duration(sources); at < length; at += l.Interval {
				after := time.Duration(60+random.IntN(400)) * time.Microsecond
				switch {
				case home == 1 && dies <= at && at < over && p == Stream:
					broken := over + 2*second
					l.add(Lost, p, source, at, broken-at, "")
					l.note(Broken, p, source, broken, heir, "reset")
					at = broken
				case home == 1 && (dies <= at && at < over || back <= at && at < back+150*ms) || random.IntN(2000) == 0:
					l.add(Lost, p, source, at, 900*ms, "")
				case home == 1 && over <= at && at < back:
					l.add(Answer, p, source, at, after, heir)
				default:
					l.add(Answer, p, source, at, after, names[home])
				}
			}
		}
	}
	l.mark(dies, "node2 killed")
	l.mark(dies+2*second, "node2 fenced <&>")
	l.mark(back, "node2 is back")
	l.mark(length-ms, "the end")
	return l
}

// faulty is a crash, with answers that should never be.
func faulty(sources int, length time.Duration) *Log {
	l := aCrash(sources, length)
	for i := range 10 {
		asked := length/3 + time.Duration(i)*l.Interval
		l.Events = append(l.Events, Event{
			At: asked + ms, After: ms, Kind: Duplicate, Proto: UDP, Source: client(5), Number: uint32(asked / l.Interval), Node: "node1",
		})
	}
	l.note(WrongMAC, UDP, client(7), length*2/3, Unknown, "")
	return l.log()
}

// keep writes a picture to a folder for people.
func keep(t *testing.T, name string, b []byte) {
	t.Helper()
	if *pictures != "" {
		check(t, os.WriteFile(*pictures+"/"+name, b, 0o600))
	}
}

func svg(t *testing.T, name string, l *Log, p Picture) []byte {
	t.Helper()
	var b bytes.Buffer
	check(t, l.WriteSVG(&b, p))
	keep(t, name+".svg", b.Bytes())
	return b.Bytes()
}

func raster(t *testing.T, name string, l *Log, p Picture) image.Image {
	t.Helper()
	var b bytes.Buffer
	check(t, l.WritePNG(&b, p))
	keep(t, name+".png", b.Bytes())
	img, err := png.Decode(&b)
	check(t, err)
	return img
}

// parts returns an SVG's texts, and how many shapes its paths of each fill have.
func parts(t *testing.T, svg []byte) (texts []string, shapes map[string]int) {
	t.Helper()
	shapes = map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(svg))
	for inText := false; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts, shapes
		}
		check(t, err)
		switch e := token.(type) {
		case xml.StartElement:
			inText = e.Name.Local == "text"
			var path, style string
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "d":
					path = a.Value
				case "style":
					style = a.Value
				}
			}
			if _, fill, filled := strings.Cut(style, "fill:"); filled && e.Name.Local == "path" {
				fill, _, _ = strings.Cut(fill, ";")
				shapes[fill] += strings.Count(path, "M")
			}
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				texts = append(texts, string(e))
			}
		}
	}
}

func TestPictureShowsWhatHappened(t *testing.T) {
	texts, shapes := parts(t, svg(t, "crash-64", faulty(64, time.Minute), Picture{Bucket: bucketOf}))
	all := strings.Join(texts, "\n")
	for _, text := range []string{"192.168.10.3", "10 answered twice, 1 wrong MAC"} {
		if !strings.Contains(all, text) {
			t.Errorf("no %q in:\n%s", text, all)
		}
	}
	want := []string{
		"seconds", "node1", "node2", "node3", "no answer", "no answer in some protocols", "answered twice", "connection broken", "wrong MAC",
		"node2 killed", "node2 fenced <&>", "node2 is back", "the end",
	}
	for bucket := range buckets {
		want = append(want, fmt.Sprintf("bucket %d", bucket))
	}
	for _, text := range want {
		if !slices.Contains(texts, text) {
			t.Errorf("no %q in:\n%s", text, all)
		}
	}
	for what, fill := range map[string]string{
		"node1": "#0072B2", "node2": "#E69F00", "node3": "#009E73", "silence": "#3B0007", "answered twice": "#FF00FF",
	} {
		if shapes[fill] == 0 && shapes[strings.ToLower(fill)] == 0 {
			t.Errorf("nothing shows %s: %v", what, shapes)
		}
	}
}

func TestPictureOfAHealthyClusterShowsNoFault(t *testing.T) {
	l := newHandMade()
	l.steady(UDP, client(1), 0, 10*second, "node1")
	texts, _ := parts(t, svg(t, "healthy", l.log(), Picture{Title: "One client"}))
	for _, text := range []string{"connection broken", "wrong MAC", "answered twice", "no answer in some protocols"} {
		if slices.Contains(texts, text) {
			t.Errorf("%q in %q", text, texts)
		}
	}
	for _, text := range []string{"One client", "first node1", "no answer"} {
		if !slices.Contains(texts, text) {
			t.Errorf("no %q in %q", text, texts)
		}
	}
}

// legendTexts returns the texts below the axis, with their places.
func legendTexts(t *testing.T, svg []byte) []legendText {
	t.Helper()
	var picture struct {
		Texts []legendText `xml:"g>text"`
	}
	check(t, xml.Unmarshal(svg, &picture))
	axis := slices.IndexFunc(picture.Texts, func(l legendText) bool { return l.Text == "seconds" })
	if axis < 0 {
		t.Fatal("the axis has no name")
	}
	below := picture.Texts[axis].Y
	return slices.DeleteFunc(picture.Texts, func(l legendText) bool { return l.Y <= below })
}

// legendText begins at X; a larger Y is further below.
type legendText struct {
	X    vg.Length `xml:"x,attr"`
	Y    vg.Length `xml:"y,attr"`
	Text string    `xml:",chardata"`
}

// No text of the legend reaches the next swatch or the picture's edge, not even with the wider font that takes the place of one that is
// not installed.
func TestLegendHasRoomForItsTexts(t *testing.T) {
	crowd := newHandMade()
	for i := range 12 {
		crowd.steady(UDP, client(i), 0, second, fmt.Sprintf("web%d.some.example.com", i+1))
	}
	for name, row := range map[string]struct {
		log            *Log
		entries, lines int
	}{
		"all-entries": {faulty(64, time.Minute), 8, 1},
		"long-names":  {crowd.log(), 13, 2},
	} {
		t.Run(name, func(t *testing.T) {
			texts := legendTexts(t, svg(t, name, row.log, Picture{Bucket: bucketOf}))
			if len(texts) != row.entries {
				t.Fatalf("%d entries, want %d: %v", len(texts), row.entries, texts)
			}
			style := text.Style{Font: sans(10), Handler: plot.DefaultTextHandler}
			const dejaVu, pictureWidth = 1.14, 1080
			lines := 1
			for i, l := range texts {
				limit := vg.Length(pictureWidth)
				switch {
				case i == len(texts)-1:
				case texts[i+1].Y == l.Y:
					limit = texts[i+1].X - swatchWidth - style.Width(" ")
				default:
					lines++
					if texts[i+1].Y-l.Y < 10 || texts[i+1].X != texts[0].X {
						t.Errorf("%q is at %.0f, %.0f, and in the next line %q at %.0f, %.0f", l.Text, l.X, l.Y, texts[i+1].Text, texts[i+1].X, texts[i+1].Y)
					}
				}
				if end := l.X + style.Width(l.Text)*dejaVu; end > limit {
					t.Errorf("%q may end at %.0f, but has room until %.0f", l.Text, end, limit)
				}
			}
			if lines != row.lines {
				t.Errorf("%d lines, want %d", lines, row.lines)
			}
		})
	}
}

// Answers of one node side by side are one shape.
func TestPictureIsSmall(t *testing.T) {
	for _, c := range []struct {
		sources int
		length  time.Duration
		most    int // kB
	}{{64, time.Minute, 300}, {200, 2 * time.Minute, 1000}} {
		b := svg(t, fmt.Sprintf("crash-%d", c.sources), aCrash(c.sources, c.length).log(), Picture{Bucket: bucketOf})
		if t.Logf("%d sources, %s: %d kB", c.sources, c.length, len(b)>>10); len(b) > c.most<<10 {
			t.Errorf("%d sources for %s: %d bytes, want %d kB at most", c.sources, c.length, len(b), c.most)
		}
	}
}

func TestPNG(t *testing.T) {
	img := raster(t, "crash-64", faulty(64, time.Minute), Picture{Bucket: bucketOf})
	if img.Bounds().Dx() != 1440 || img.Bounds().Dy() < 500 || img.Bounds().Dy() > 1500 {
		t.Errorf("size %v", img.Bounds())
	}
	pixels := map[color.Color]int{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			pixels[color.NRGBAModel.Convert(img.At(x, y))]++
		}
	}
	for what, c := range map[string]color.Color{
		"node1": nodeColours[0], "node2": nodeColours[1], "node3": nodeColours[2], "silence": silentColour, "answered twice": duplicateColour,
	} {
		if pixels[c] < 100 {
			t.Errorf("%d pixels show %s", pixels[c], what)
		}
	}
	if *pictures != "" {
		raster(t, "crash-200", aCrash(200, 2*time.Minute).log(), Picture{Bucket: bucketOf})
	}
}

func TestPictureOfLittle(t *testing.T) {
	nothing, single := newHandMade(), newHandMade()
	single.add(Lost, UDP, client(1), 0, 900*ms, "")
	arp := newHandMade()
	arp.Events = append(arp.Events, Event{Kind: WrongMAC, Node: "node1"}, Event{At: second, Kind: Mark})
	for name, l := range map[string]*handMade{"nothing": nothing, "single": single, "arp": arp} {
		raster(t, name, l.log(), Picture{})
		parts(t, svg(t, name, l.log(), Picture{Bucket: bucketOf}))
	}
}
