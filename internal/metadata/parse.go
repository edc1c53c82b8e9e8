package metadata

import (
	"errors"
	"maps"
	"slices"

	"ocf-clusterip/internal/ocf"
)

// Parse reads the parameters as the operator gave them (ocf.Environment.Parameters). A parameter that is absent or empty has its default,
// or no value if it has no default.
//
// Parse returns all faults at once, joined, each an *ocf.Error with ErrConfigured. A parameter with a fault has no value; the others have
// theirs, because stop needs them. unknown lists the names that are not in the table, sorted. They deserve a warning (see Suggest), not a
// failure: an older agent must run although it does not have a newer agent's parameter.
func Parse(params map[string]string) (values Values, unknown []string, err error) {
	parsed := make(map[string]any)
	var faults []error
	for _, p := range Parameters() {
		value, fault := p.read(params[p.Name])
		parsed[p.Name] = value
		faults = append(faults, fault)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if _, known := parsed[name]; !known {
			unknown = append(unknown, name)
		}
	}
	return NewValues(parsed), unknown, errors.Join(faults...)
}

// read returns the parameter's value for a text, as NewValues needs it.
func (p Parameter) read(text string) (any, error) {
	if text == "" {
		return p.absent()
	}
	if err := ocf.CheckParameter(p.Name, text); err != nil {
		return nil, err
	}
	value, fault := p.parse(text)
	if fault != "" {
		return nil, ocf.Errorf(ocf.ErrConfigured, "parameter %s=%s %s", p.Name, ocf.Quote(text), fault)
	}
	return value, nil
}

// absent returns the parameter's value if none is given.
func (p Parameter) absent() (any, error) {
	if p.Required {
		return nil, ocf.Errorf(ocf.ErrConfigured, "parameter %s is missing: it must be %s", p.Name, p.Allowed())
	}
	if p.Default == "" {
		return nil, nil
	}
	value, fault := p.parse(p.Default)
	if fault != "" {
		panic("metadata: the default of " + p.Name + " " + fault)
	}
	return Default{Value: value}, nil
}
