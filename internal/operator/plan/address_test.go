package plan

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFirstAddress(t *testing.T) {
	for line, want := range map[string]string{
		`192.0.2.7`: "192.0.2.7",
		`192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET / HTTP/1.1" 200 2326 "-" "Mozilla/5.0 Chrome/120.0.0.0"`: "192.0.2.7",
		`www.example.org:443 2001:db8::7 - - [10/Oct/2026:13:55:36 +0200] "GET / HTTP/1.1" 200 12`:                "2001:db8::7",

		`Feb  6 12:14:14 lb haproxy[14389]: 10.0.1.2:33317 [06/Feb/2026:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750`: "10.0.1.2",

		`1286536309.586    921 192.168.0.68 TCP_MISS/200 507 POST http://198.51.100.9/x`:    "192.168.0.68",
		`{"time":"2026-10-10T13:55:36Z","remote_addr":"2001:DB8:0:0:0:0:0:7","status":200}`: "2001:db8::7",
		`{"client":"[2001:db8::7]:50123"}`:                                                  "2001:db8::7",
		`[2001:db8::7]:50123`:                                                               "2001:db8::7",
		`[192.0.2.7]`:                                                                       "192.0.2.7",
		`192.0.2.7:50123`:                                                                   "192.0.2.7",
		`query from client:192.0.2.7:53`:                                                    "192.0.2.7",
		`postfix/smtpd[1]: connect from unknown[192.0.2.7]: ok`:                             "192.0.2.7",
		`Connection closed by 192.0.2.7.`:                                                   "192.0.2.7",
		`peer 2001:db8::7: gone`:                                                            "2001:db8::7",
		`a neighbour, fe80::1%eth0, asks`:                                                   "fe80::1",
		`::ffff:192.0.2.7 - -`:                                                              "192.0.2.7",
		`2001:db8::192.0.2.7`:                                                               "2001:db8::c000:207",
		`/192.0.2.7:41000 accepted`:                                                         "192.0.2.7",
		`IN=eth0 MAC=52:54:00:12:34:56:52:54:00:aa:bb:cc:08:00 SRC=192.0.2.7 DST=192.168.10.3`: "192.0.2.7",
		`10.0.0.1, 10.0.0.2`:       "10.0.0.1",
		"\t192.0.2.7\t":            "192.0.2.7",
		`::1 - -`:                  "::1",
		"192.0.2.7\r":              "192.0.2.7",
		`1.2.3.4.5 then 192.0.2.7`: "192.0.2.7",
		`-192.0.2.8 192.0.2.7`:     "192.0.2.7",

		``:                               "",
		`no address here`:                "",
		`12:14:14 std::string a:b c::z`:  "",
		`"Mozilla/5.0 Chrome/120.0.0.0"`: "",
		`10.0.0.0/8 is a network`:        "",
		// Where the server has resolved the client's address to a name, an old Firefox' version comes next.
		`host.example.org - - "GET /" 200 12 "-" "Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.9.0.10) Gecko/2009042513"`: "",
		`256.1.1.1 1.2.3 1.2.3.4.5 01.2.3.4 1.2.3.4x x1.2.3.4 1..2.3`:                                                     "",
		`1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 1::2::3 12345::1 ::1:2:3:4:5:6:7:8`:                                              "",
		`52:54:00:12:34:56`:           "",
		`http://192.0.2.1/index.html`: "",
		`ip-192-0-2-7.example.org`:    "",
		`192.0.2.7.example.org`:       "",
	} {
		got, ok := FirstAddress([]byte(line))
		if text := map[bool]string{true: got.String()}[ok]; text != want {
			t.Errorf("%s\nfound %q, want %q", line, text, want)
		}
	}
}

func TestFirstAddressAllocatesNothing(t *testing.T) {
	line := []byte(`www.example.org:443 192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET / HTTP/1.1" 200 12`)
	if n := testing.AllocsPerRun(100, func() { FirstAddress(line) }); n > 0 {
		t.Errorf("%v allocations for each line", n)
	}
}

// FuzzFirstAddress compares the finder with package net/netip.
func FuzzFirstAddress(f *testing.F) {
	for _, line := range []string{
		"192.0.2.7 - -", "[2001:db8::7]:50123", "::ffff:192.0.2.7", "fe80::1%eth0", "client:192.0.2.7:53", "256.1.1.1", "1:2:3:4:5:6:7:8",
		"12:14:14", "1::2::3", "/192.0.2.7:1", "2001:db8::7.", "::", ":::", "0:0:0:0:0:0:192.0.2.7",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got, ok := FirstAddress([]byte(line))
		if ok && (!got.IsValid() || got.Is4In6() || got.Zone() != "") {
			t.Fatalf("%q: found %v", line, got)
		}
		if again, ok2 := FirstAddress([]byte("GET / - " + line + " 198.51.100.1")); ok && (again != got || !ok2) {
			t.Errorf("%q: found %v, and %v in the midst of others", line, got, again)
		}
		if want, err := netip.ParseAddr(line); err == nil && !strings.Contains(line, "%") && (!ok || got != want.Unmap()) {
			t.Errorf("%q: found %v (%v), netip reads %v", line, got, ok, want)
		}
		if want, err := netip.ParseAddrPort(line); err == nil && want.Addr().Zone() == "" && (!ok || got != want.Addr().Unmap()) {
			t.Errorf("%q: found %v (%v), netip reads %v", line, got, ok, want)
		}
		if ok && strings.IndexFunc(line, func(r rune) bool { return r >= '0' && r <= '9' || r == ':' }) < 0 {
			t.Errorf("%q: found %v in nothing", line, got)
		}
	})
}
