package metadata

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"ocf-clusterip/internal/services"
)

// Values holds the parsed values of a resource's parameters, by name. It cannot be changed.
//
// Each accessor panics if the parameter is not in the table, or has another type: that is a programmer's mistake. It returns the zero value
// if the parameter has no value, because none was given and there is no default, or because the given one is faulty.
type Values struct {
	values map[string]any
}

// Default marks a value in the argument of NewValues as one that the operator did not give.
type Default struct{ Value any }

// NewValues returns the values of all parameters of the table, by name. Each has one of the types that Values has accessors for, or is such
// a value in a Default, or nil for none. NewValues keeps a copy.
func NewValues(values map[string]any) Values {
	values = maps.Clone(values)
	for name, value := range values {
		switch list := value.(type) {
		case net.HardwareAddr:
			values[name] = slices.Clone(list)
		case []netip.Addr:
			values[name] = slices.Clone(list)
		case []services.Service:
			values[name] = slices.Clone(list)
		case []uint32:
			values[name] = slices.Clone(list)
		}
	}
	return Values{values: values}
}

// Given reports whether the operator gave the parameter a good value. A default that was filled in is not given.
func (v Values) Given(name string) bool {
	value := v.entry(name)
	_, isDefault := value.(Default)
	return value != nil && !isDefault
}

// Addrs returns a list of IP addresses, as a copy; nil when there is no value.
func (v Values) Addrs(name string) []netip.Addr {
	addrs, _ := lookup[[]netip.Addr](v, name)
	return slices.Clone(addrs)
}

// Services returns a list of services, as a copy; nil when there is no value.
func (v Values) Services(name string) []services.Service {
	list, _ := lookup[[]services.Service](v, name)
	return slices.Clone(list)
}

// Numbers returns a list of numbers, as a copy; nil when there is no value.
func (v Values) Numbers(name string) []uint32 {
	numbers, _ := lookup[[]uint32](v, name)
	return slices.Clone(numbers)
}

// HardwareAddr returns a link-layer address, as a copy; nil when there is no value.
func (v Values) HardwareAddr(name string) net.HardwareAddr {
	mac, _ := lookup[net.HardwareAddr](v, name)
	return slices.Clone(mac)
}

// Uint32 returns a number, and whether there is one.
func (v Values) Uint32(name string) (uint32, bool) { return lookup[uint32](v, name) }

// Duration returns a length of time; 0 when there is no value.
func (v Values) Duration(name string) time.Duration {
	d, _ := lookup[time.Duration](v, name)
	return d
}

// Bool returns a truth value; false when there is no value.
func (v Values) Bool(name string) bool {
	b, _ := lookup[bool](v, name)
	return b
}

// String returns a text; empty when there is no value.
func (v Values) String(name string) string {
	s, _ := lookup[string](v, name)
	return s
}

func (v Values) entry(name string) any {
	value, known := v.values[name]
	if !known {
		panic(fmt.Sprintf("metadata: no parameter %q in the table", name))
	}
	return value
}

func lookup[T any](v Values, name string) (T, bool) {
	value := v.entry(name)
	if d, isDefault := value.(Default); isDefault {
		value = d.Value
	}
	if value == nil {
		var none T
		return none, false
	}
	t, isT := value.(T)
	if !isT {
		panic(fmt.Sprintf("metadata: parameter %q is a %T, not a %T", name, value, t))
	}
	return t, true
}
