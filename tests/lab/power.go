package lab

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// powerPort is where the power switch listens, on the management network (IPMI's number).
const powerPort = 623

const powerTimeout = 30 * time.Second // of one request

// powerSwitch gives hosts their power, at the request of fence agents: a line "ACTION HOST", answered by "ok" and more, or by
// what is wrong. The actions are on, off, reboot, status and list.
type powerSwitch struct {
	lab      *Lab
	listener net.Listener
	running  sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool // nil when closed
}

func (l *Lab) powerAddress() netip.AddrPort {
	return netip.AddrPortFrom(l.Network.Switch.Addr, powerPort)
}

func (l *Lab) startPowerSwitch() (*powerSwitch, error) {
	p := &powerSwitch{lab: l, conns: map[net.Conn]bool{}}
	err := l.Network.Switch.Do(func() (err error) {
		p.listener, err = net.Listen("tcp4", l.powerAddress().String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the power switch: %w", err)
	}
	p.running.Go(func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return
			}
			if p.add(conn) {
				p.running.Go(func() { p.serve(conn) })
			}
		}
	})
	return p, nil
}

func (p *powerSwitch) add(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = true
	return true
}

// close ends the switch; requests under way are finished.
func (p *powerSwitch) close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func (p *powerSwitch) serve(conn net.Conn) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, conn)
		_ = conn.Close()
	}()
	_ = conn.SetDeadline(time.Now().Add(powerTimeout))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	answer, err := p.do(strings.Fields(line))
	if err != nil {
		p.lab.logf("power switch: %s: %v", strings.TrimSpace(line), err)
		answer = "error: " + err.Error()
	} else {
		answer = strings.TrimSpace("ok " + answer)
	}
	_, _ = fmt.Fprintln(conn, answer)
}

func (p *powerSwitch) do(words []string) (string, error) {
	if len(words) == 0 {
		return "", errors.New("no request")
	}
	if words[0] == "list" {
		return p.lab.names(), nil
	}
	if len(words) != 2 {
		return "", errors.New("which host?")
	}
	h := p.lab.Host(words[1])
	if h == nil {
		return "", fmt.Errorf("no host %q", words[1])
	}
	ctx := p.lab.ctx
	if words[0] == "off" || words[0] == "reboot" {
		select {
		case <-ctx.Done():
		case <-time.After(p.lab.options.FencingTakes):
		}
	}
	switch words[0] {
	case "status":
		if h.IsOn() {
			return "on", nil
		}
		return "off", nil
	case "off":
		return "", h.fence()
	case "on":
		return "", h.On(ctx)
	case "reboot":
		if err := h.fence(); err != nil {
			return "", err
		}
		if !p.lab.options.StayOff {
			p.lab.boots.Go(func() { p.bootLater(ctx, h) })
		}
		return "", nil
	}
	return "", fmt.Errorf("no action %q", words[0])
}

// bootLater switches a host on again after a reboot was asked for, which is done when the power was off: the node that fences
// need not wait for the boot.
func (p *powerSwitch) bootLater(ctx context.Context, h *Host) {
	if ctx.Err() != nil {
		return
	}
	if err := h.On(ctx); err != nil {
		p.lab.logf("%s does not boot: %v", h.Name, err)
	}
}

// fenceMetaData describes the fence agent (the fence agents' API, "metadata").
//
//go:embed fence_lab.xml
var fenceMetaData string

// fence is the fence agent: Pacemaker's fencer gives the options on stdin, a name=value a line. It returns the exit status
// of the fence agents' API: 0 done or on, 1 failed, 2 off.
func fence(args []string, in io.Reader, out, complaints io.Writer) int {
	options := map[string]string{"action": "reboot"}
	if len(args) > 0 { // fence_lab -o metadata, as pcs calls it
		options["action"] = strings.TrimPrefix(args[len(args)-1], "--action=")
	} else {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), "="); ok {
				options[name] = value
			}
		}
	}
	if options["action"] == "metadata" || options["action"] == "meta-data" {
		_, _ = io.WriteString(out, fenceMetaData)
		return 0
	}
	answer, err := askPowerSwitch(options)
	switch {
	case err != nil:
		_, _ = fmt.Fprintf(complaints, "fence_lab: %s %s: %v\n", options["action"], options["plug"], err)
		return 1
	case options["action"] == "list":
		_, _ = fmt.Fprintln(out, strings.ReplaceAll(answer, " ", "\n"))
	case answer == "off":
		return 2
	}
	return 0
}

func askPowerSwitch(options map[string]string) (string, error) {
	request := options["action"] + " " + options["plug"]
	switch options["action"] {
	case "validate-all":
		return "", nil
	case "monitor", "list":
		request = "list"
	}
	conn, err := net.DialTimeout("tcp4", options["ip"], powerTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(powerTimeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, request); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", err
	}
	answer = strings.TrimSpace(answer)
	if rest, ok := strings.CutPrefix(answer, "ok"); ok {
		return strings.TrimSpace(rest), nil
	}
	return "", errors.New(answer)
}
