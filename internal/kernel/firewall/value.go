package firewall

import (
	"bytes"
	"math/bits"
	"slices"
)

// A value is some bytes of a packet or of a register of nf_tables, as far as they are known.
type value []octet

type octet struct {
	bits   byte
	known  byte // which of the bits are
	client bool // the others depend on who the client is
}

const allBits = 0xff

func unknown(length int) value { return make(value, length) }

func ofClient(length int) value { return slices.Repeat(value{{client: true}}, length) }

func exactly(data ...byte) value {
	v := unknown(len(data))
	v.set(0, data...)
	return v
}

func (v value) set(offset int, data ...byte) {
	for i, b := range data {
		v[offset+i] = octet{bits: b, known: allBits}
	}
}

// part cuts bytes out of a header; those beyond its end are not known.
func (v value) part(offset, length int) value {
	cut := unknown(length)
	if offset < len(v) {
		copy(cut, v[offset:])
	}
	return cut
}

func (v value) bytes() (data []byte, known bool) {
	for _, o := range v {
		if o.known != allBits {
			return nil, false
		}
		data = append(data, o.bits)
	}
	return data, len(data) > 0
}

// A span is the values from one to another, both included. Without a first it begins with 0, without a last it ends with the highest.
type span struct {
	first, last []byte
	joint       bool // a span of each of several fields that follow one another
}

// in compares numbers of the same length in network order. If the value depends on the client, a span that leaves him half of the values or
// more does not count as some.
func (v value) in(s span) match {
	first, last := s.first, s.last
	if first == nil {
		first = make([]byte, len(v))
	}
	if last == nil {
		last = bytes.Repeat([]byte{allBits}, len(v))
	}
	if len(first) != len(v) || len(last) != len(v) || len(v) == 0 {
		return perhaps
	}
	if bytes.Count(first, []byte{0}) == len(v) && bytes.Count(last, []byte{allBits}) == len(v) {
		return yes
	}
	one := bytes.Equal(first, last)
	demanded, open := 0, false // how many bits the client must have, and whether he may choose the rest
	for i, o := range v {
		if one && (o.bits^first[i])&o.known != 0 {
			return no
		}
		if o.known == allBits {
			continue
		}
		if differ := first[i] ^ last[i]; o.client && !open {
			demanded += bits.OnesCount8(^(allBits >> bits.LeadingZeros8(differ)) &^ o.known)
			open = differ != 0
		}
	}
	data, known := v.bytes()
	switch {
	case known && (bytes.Compare(data, first) < 0 || bytes.Compare(data, last) > 0):
		return no
	case known && (one || !s.joint):
		return yes
	case demanded > 1:
		return some
	default:
		return perhaps
	}
}

// before returns the number before another one, which is not 0.
func before(number []byte) []byte {
	number = slices.Clone(number)
	for i := len(number) - 1; i >= 0; i-- {
		if number[i]--; number[i] != allBits {
			break
		}
	}
	return number
}
