//go:build system

package lan

import (
	"bufio"
	"context"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// shared is the shared address.
var shared = netip.MustParseAddr("192.168.10.3")

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// always is an owner function: one node owns everything.
func always(node int) func(Flow) int { return func(Flow) int { return node } }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// share gives a host the shared address as a plain one.
func share(t *testing.T, h *Host) {
	t.Helper()
	if err := h.AddAddress(NIC, netip.PrefixFrom(shared, 32)); err != nil {
		t.Fatal(err)
	}
}

func unshare(t *testing.T, h *Host) {
	t.Helper()
	link, err := h.Handle().LinkByName(NIC)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Handle().AddrDel(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(shared, 32))}); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, n *Network) {
	t.Helper()
	if err := n.Serve(EchoPort); err != nil {
		t.Fatal(err)
	}
}

func probe(t *testing.T, n *Network, tr Traffic) *Report {
	t.Helper()
	r, err := n.Probe(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// nft runs nft on a host.
func nft(t *testing.T, h *Host, rules string) {
	t.Helper()
	if err := h.Run(t.Context(), ToolPath, "nft", rules).Failure(); err != nil {
		t.Fatalf("nft on %s: %v", h.Name, err)
	}
}

// echo sends that many bytes through the server's echo and returns the name it greeted with.
func echo(t *testing.T, from, to *Host, size int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	conn, err := from.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(to.Addr, EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	answer := bufio.NewReader(conn)
	name, err := answer.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, answer, int64(size)); err != nil {
		t.Errorf("read the echo: %v", err)
	}
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
	return strings.TrimSpace(name)
}

// namespaces lists those whose name begins so.
func namespaces(t *testing.T, prefix string) []string {
	t.Helper()
	entries, err := os.ReadDir(namespaceDir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}
