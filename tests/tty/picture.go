package tty

import (
	"image/color"
	"io"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/vgimg"

	uv "github.com/charmbracelet/ultraviolet"
)

// The colours of a cell that has none of its own. On white, xterm's dark colours can be read.
var paper, ink = color.White, color.NRGBA{R: 0x1f, G: 0x23, B: 0x28, A: 255}

// WritePNG draws what the terminal shows.
func (t *Terminal) WritePNG(to io.Writer) error {
	const size, lineHeight, margin, dpi = vg.Length(10), vg.Length(13), vg.Length(10), 110
	fonts := font.NewCache(liberation.Collection())
	plain := font.Font{Typeface: "Liberation", Variant: "Mono"}
	bold := plain
	bold.Weight = stdfont.WeightBold
	regular := fonts.Lookup(plain, size)
	columnWidth := regular.Width("M")

	t.mu.Lock()
	defer t.mu.Unlock()
	width, height := t.screen.Width(), t.screen.Height()
	canvas := vgimg.PngCanvas{Canvas: vgimg.NewWith(
		vgimg.UseWH(columnWidth*vg.Length(width)+2*margin, lineHeight*vg.Length(height)+2*margin),
		vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(paper),
	)}
	_, top := canvas.Size()
	for y := range height {
		for x := range width {
			cell := t.screen.CellAt(x, y)
			if cell == nil || cell.Content == "" || cell.Content == " " {
				continue
			}
			face, colour := regular, cell.Style.Fg
			if cell.Style.Attrs&uv.AttrBold != 0 {
				face = fonts.Lookup(bold, size)
			}
			if colour == nil {
				colour = ink
			}
			canvas.SetColor(colour)
			canvas.FillString(face, vg.Point{
				X: margin + columnWidth*vg.Length(x), Y: top - margin - lineHeight*vg.Length(y) - size,
			}, cell.Content)
		}
	}
	_, err := canvas.WriteTo(to)
	return err
}
