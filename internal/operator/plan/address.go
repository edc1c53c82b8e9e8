package plan

import (
	"bytes"
	"net/netip"
)

// FirstAddress finds the first IPv4 or IPv6 address in a line of any log, with a port, in brackets or alone. It skips what only looks like
// an address: a time, a hardware address, a program's version behind a slash or behind rv:, the host of a URL. An IPv6 address that
// contains an IPv4 address (::ffff:192.0.2.7) counts as the IPv4 address. It allocates nothing for IPv4.
func FirstAddress(line []byte) (netip.Addr, bool) {
	for begin := 0; begin < len(line); begin++ {
		if !isOfWord(line[begin]) {
			continue
		}
		end := begin + 1
		for end < len(line) && isOfWord(line[end]) {
			end++
		}
		if address, ok := addressOf(line[begin:end]); ok {
			return address, true
		}
		begin = end
	}
	return netip.Addr{}, false
}

// isOfWord reports whether a byte belongs to a word. Only a whole word, perhaps with a port, can be an address.
func isOfWord(c byte) bool {
	return isDigit(c) || c|0x20-'a' <= 'z'-'a' || c == '.' || c == ':' || c == '-' || c == '_' || c == '/' || c == '%' || c >= 0x80
}

// geckoVersion is what stands before a version of four numbers in the names of old Firefoxes: rv:1.9.0.10.
const geckoVersion = "rv"

func addressOf(word []byte) (netip.Addr, bool) {
	if word[0] == '/' { // as Java writes it
		word = word[1:]
	}
	if address, ok := parse4(word); ok {
		return address, true
	}
	colons := 0
	for i, c := range word {
		if c != ':' {
			continue
		}
		colons++
		if address, ok := parse4(word[i+1:]); ok && !isHex(word[:i]) && string(word[:i]) != geckoVersion {
			return address, true // client:192.0.2.7
		}
	}
	if colons < 2 {
		return netip.Addr{}, false
	}
	return parse6(word)
}

// isHex reports whether a text has only the characters of an IPv6 address.
func isHex(text []byte) bool {
	for _, c := range text {
		if !isDigit(c) && !isHexLetter(c) && c != ':' {
			return false
		}
	}
	return true
}

// parse4 reads an IPv4 address, with a port or the end of a sentence behind it.
func parse4(word []byte) (netip.Addr, bool) {
	value, end, ok := octets(word)
	if !ok || !isEnd(word[end:]) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4(value), true
}

// isEnd reports whether a text is empty, a full stop, a colon, or a colon and a number.
func isEnd(text []byte) bool {
	if len(text) == 0 || text[0] == '.' {
		return len(text) <= 1
	}
	if text[0] != ':' {
		return false
	}
	for _, c := range text[1:] {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// octets reads four decimal numbers, and returns where they end. As in package netip, none has a leading zero.
func octets(text []byte) (value [4]byte, end int, ok bool) {
	for i := range value {
		if i > 0 {
			if end >= len(text) || text[end] != '.' {
				return value, end, false
			}
			end++
		}
		begin, number := end, 0
		for end < len(text) && isDigit(text[end]) {
			number = number*10 + int(text[end]-'0')
			end++
			if number > 0xff || end-begin > 3 {
				return value, end, false
			}
		}
		if end == begin || text[begin] == '0' && end-begin > 1 {
			return value, end, false
		}
		value[i] = byte(number)
	}
	return value, end, true
}

// parse6 reads an IPv6 address without its zone, perhaps with the end of a sentence behind it.
func parse6(word []byte) (netip.Addr, bool) {
	word, _, _ = bytes.Cut(word, []byte{'%'})
	if end := len(word) - 1; end > 0 && (word[end] == '.' || word[end] == ':' && word[end-1] != ':') {
		word = word[:end]
	}
	const most = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
	if len(word) > most || !seems6(word) {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(string(word))
	return address.Unmap(), err == nil
}

// seems6 keeps times and hardware addresses away from netip.ParseAddr, whose errors are expensive.
func seems6(word []byte) bool {
	const colons = 7 // of an address in full; 6 before an IPv4 address
	count, short := 0, false
	for i, c := range word {
		switch {
		case c == ':':
			count++
			short = short || i > 0 && word[i-1] == ':'
		case c != '.' && !isDigit(c) && !isHexLetter(c):
			return false
		}
	}
	return short || count == colons || count == colons-1 && bytes.IndexByte(word, '.') >= 0
}

func isDigit(c byte) bool { return c-'0' <= '9'-'0' }

func isHexLetter(c byte) bool { return c|0x20-'a' <= 'f'-'a' }
