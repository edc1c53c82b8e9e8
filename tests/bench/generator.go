package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"ocf-clusterip/tests/lan"
)

// A generator sends frames into cables. A small XDP program runs again and again in the kernel (BPF_PROG_TEST_RUN with
// BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18; Documentation/bpf/bpf_prog_run.rst): each time it copies the next prepared frame into an empty
// one, and redirects that to the near end of a cable. So a frame costs the sender little, and the receiver's interface takes it in as
// it does those of a driver with XDP.
//
// The receiver's work is part of the time. A redirect raises the receiver's NAPI on the same processor. The kernel makes 64 frames with
// soft interrupts off; then it turns them on, which runs the NAPI poll for those 64 before the next are made.
type generator struct {
	host    *lan.Host
	program *ebpf.Program
	frames  *ebpf.Map // one value: all frames, one behind the other
	control *ebpf.Map // one value: control
}

const (
	frameLen      = 64               // bytes, without the checksum that an interface adds
	frameLenShift = 6                // frameLen is 1 << frameLenShift
	framesPerSet  = 1 << framesShift // all of them fit into a processor's first cache
	framesShift   = 9

	wordLen      = 1 << wordLenShift // bytes that the program copies at once
	wordLenShift = 3
)

// control is what the program and its caller tell each other.
type control struct {
	Port  uint64           // ifindex of the cable's near end
	Sent  uint64           // frames
	Times [maxTimes]uint64 // in ns, when the first of all frames was sent for the first time, the second time and so on
}

const (
	portOffset  = 0
	sentOffset  = wordLen
	timesOffset = 2 * wordLen
	controlLen  = timesOffset + maxTimes*wordLen

	maxTimes   = 1 << 12
	maxPackets = (maxTimes - 1) * framesPerSet

	// Of struct xdp_md.
	dataOffset    = 0
	dataEndOffset = 4
)

func newGenerator(host *lan.Host) (*generator, error) {
	g := &generator{host: host}
	for _, m := range []struct {
		to     **ebpf.Map
		name   string
		length uint32
	}{{&g.frames, "frames", framesPerSet * frameLen}, {&g.control, "control", controlLen}} {
		var err error
		if *m.to, err = ebpf.NewMap(&ebpf.MapSpec{Name: m.name, Type: ebpf.Array, KeySize: 4, ValueSize: m.length, MaxEntries: 1}); err != nil {
			return nil, errors.Join(fmt.Errorf("make the generator's map %s: %w", m.name, err), g.close())
		}
	}
	var err error
	if g.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "generator", Type: ebpf.XDP, License: "GPL", Instructions: generatorCode(g.frames.FD(), g.control.FD()),
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("load the generator: %w", err), g.close())
	}
	return g, nil
}

// generatorCode copies frame number Sent, modulo their number, and redirects it to Port. It takes the time itself, because the kernel needs
// milliseconds to prepare a run and to free what it used.
func generatorCode(frames, control int) asm.Instructions {
	const (
		word   = asm.R0
		packet = asm.R2
		end    = asm.R3
		time   = asm.R6
		frame  = asm.R6
		shared = asm.R7
		number = asm.R8
		xdp    = asm.R9 // struct xdp_md
	)
	code := asm.Instructions{
		asm.Mov.Reg(xdp, asm.R1),
		asm.LoadMapValue(shared, control, 0),
		asm.LoadMem(number, shared, sentOffset, asm.DWord),
		asm.Mov.Reg(word, number),
		asm.Add.Imm(word, 1),
		asm.StoreMem(shared, sentOffset, word, asm.DWord), // not atomic: it runs on one processor

		asm.Mov.Reg(time, number),
		asm.And.Imm(number, framesPerSet-1),
		asm.JNE.Imm(number, 0, "copy"),
		asm.RSh.Imm(time, framesShift),
		asm.And.Imm(time, maxTimes-1),
		asm.LSh.Imm(time, wordLenShift),
		asm.Add.Reg(time, shared),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(time, timesOffset, asm.R0, asm.DWord),

		asm.LoadMem(packet, xdp, dataOffset, asm.Word).WithSymbol("copy"),
		asm.LoadMem(end, xdp, dataEndOffset, asm.Word),
		asm.Mov.Reg(word, packet),
		asm.Add.Imm(word, frameLen),
		asm.JGT.Reg(word, end, "short"),
		asm.LSh.Imm(number, frameLenShift),
		asm.LoadMapValue(frame, frames, 0),
		asm.Add.Reg(frame, number),
	}
	for offset := int16(0); offset < frameLen; offset += wordLen {
		code = append(
			code,
			asm.LoadMem(word, frame, offset, asm.DWord),
			asm.StoreMem(packet, offset, word, asm.DWord),
		)
	}
	return append(
		code,
		asm.LoadMem(asm.R1, shared, portOffset, asm.DWord),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpAborted).WithSymbol("short"),
		asm.Return(),
	)
}

// enum xdp_action of linux/bpf.h.
const (
	xdpAborted = 0
	xdpDrop    = 1
)

// load makes these the frames.
func (g *generator) load(frames [][]byte) error {
	all := slices.Concat(frames...)
	if len(frames) != framesPerSet || len(all) != framesPerSet*frameLen {
		return fmt.Errorf("%d frames with %d bytes do not fit, %d with %d do", len(frames), len(all), framesPerSet, framesPerSet*frameLen)
	}
	return g.frames.Put(uint32(0), all)
}

// errInterrupted: a signal made the kernel begin anew.
var errInterrupted = errors.New("the generator was interrupted")

// send sends all frames to a cable's near end, so many times, from a thread that steady has prepared. It returns how many frames it sent,
// and how many ns one took.
//
// That is the lower quartile of what a frame took on average in each pass over all frames. Other work on the machine only ever adds to a
// pass, a few microseconds or some milliseconds, so the mean would tell more about that than about packets. And no pass is cheap because
// the receiver put its work off: the ring of a cable has room for half of a pass only, and the interface counts frames that find none.
func (g *generator) send(port, passes int) (sent uint64, each float64, err error) {
	c := control{Port: uint64(port)}
	if err := g.control.Put(uint32(0), c); err != nil {
		return 0, 0, err
	}
	want := passes*framesPerSet + 1 // when the last one is sent, all passes are over
	if _, err := g.program.Run(&ebpf.RunOptions{
		Data: make([]byte, frameLen), Repeat: uint32(want), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
	}); err != nil {
		return 0, 0, fmt.Errorf("send live frames, which needs Linux 5.18: %w", err)
	}
	if err := g.control.Lookup(uint32(0), &c); err != nil {
		return 0, 0, err
	}
	if c.Sent != uint64(want) {
		return 0, 0, errInterrupted
	}
	costs := make([]float64, passes)
	for i := range costs {
		costs[i] = float64(c.Times[i+1]-c.Times[i]) / framesPerSet
	}
	slices.Sort(costs)
	return c.Sent, costs[passes/4], nil
}

// steady keeps the calling thread on one processor, ahead of other work there.
func steady() error {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	last := 0
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			last = cpu
		}
	}
	one.Set(last)
	const highest = -20
	return errors.Join(unix.SchedSetaffinity(0, &one), unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), highest))
}

func (g *generator) close() error {
	var errs []error
	if g.program != nil {
		errs = append(errs, g.program.Close())
	}
	for _, m := range []*ebpf.Map{g.frames, g.control} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// newDrop returns a program that drops everything: no program can be cheaper.
func newDrop() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "drop", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpDrop), asm.Return()},
	})
}

// udpFrame is a datagram in a frame of frameLen bytes.
func udpFrame(from, to endpoint) []byte {
	var header []byte
	etherType, protocol := []byte{0x86, 0xdd}, byte(unix.IPPROTO_UDP)
	if from.address.Is4() {
		etherType = []byte{0x08, 0x00}
		header = []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
		header = slices.Concat(header, from.address.AsSlice(), to.address.AsSlice())
		binary.BigEndian.PutUint16(header[2:], frameLen-ethernetLen)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	} else {
		header = []byte{0x60, 0, 0, 0, 0, 0, protocol, 64}
		header = slices.Concat(header, from.address.AsSlice(), to.address.AsSlice())
		binary.BigEndian.PutUint16(header[4:], frameLen-ethernetLen-ipv6Len)
	}
	datagram := make([]byte, frameLen-ethernetLen-len(header))
	binary.BigEndian.PutUint16(datagram, from.port)
	binary.BigEndian.PutUint16(datagram[2:], to.port)
	binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
	pseudo := slices.Concat(from.address.AsSlice(), to.address.AsSlice(), []byte{0, protocol, 0, byte(len(datagram))})
	binary.BigEndian.PutUint16(datagram[6:], checksum(slices.Concat(pseudo, datagram)))
	return slices.Concat(to.mac, from.mac, etherType, header, datagram)
}

// tcpFrame is a segment in the middle of a connection, in an IPv4 packet. Its checksum is wrong, so that TCP drops it without an answer.
func tcpFrame(from, to endpoint) []byte {
	const ack = 0x10
	frame := udpFrame(from, to)
	header := frame[ethernetLen : ethernetLen+ipv4Len]
	header[9], header[10], header[11] = unix.IPPROTO_TCP, 0, 0
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	segment := frame[ethernetLen+ipv4Len:]
	clear(segment[4:])
	const headerWords = 5
	segment[12], segment[13], segment[17] = headerWords<<4, ack, 1
	return frame
}

const (
	ipv4Len     = 20
	ethernetLen = 14
	ipv6Len     = 40
)

// An endpoint is one end of a flow.
type endpoint struct {
	mac     net.HardwareAddr
	address netip.Addr
	port    uint16
}
