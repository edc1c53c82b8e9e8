package clusterip

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// A fakeBackend is a TableKernel that holds what it is told.
type fakeBackend struct {
	tables  Tables
	applied []string
	lacks   error // why it cannot be used
	silent  bool  // that cannot be told
	broken  error // of reading
}

func (b *fakeBackend) ObserveTables(context.Context, netip.Addr) (Tables, error) {
	return b.tables, b.broken
}

func (b *fakeBackend) ApplyTables(_ context.Context, step Step) error {
	b.applied = append(b.applied, step.String())
	if lay, ok := step.(InstallTables); ok {
		b.tables = Tables{Present: true, Installed: &lay.Layout}
	}
	return nil
}

func (b *fakeBackend) Layouts(context.Context) ([]Layout, error) {
	if b.tables.Installed == nil {
		return nil, b.broken
	}
	return []Layout{*b.tables.Installed}, b.broken
}

func (b *fakeBackend) Supports(context.Context, Layout) (Answer, error) {
	switch {
	case b.lacks == nil:
		return Yes, nil
	case b.silent:
		return Unknown, b.lacks
	default:
		return No, b.lacks
	}
}

func TestBackendIsChosen(t *testing.T) {
	why := ocf.Errorf(ocf.ErrInstalled, "this kernel lacks it")
	yes := func() *fakeBackend { return &fakeBackend{} }
	no := func() *fakeBackend { return &fakeBackend{lacks: why} }
	perhaps := func() *fakeBackend { return &fakeBackend{lacks: why, silent: true} }
	plain := specOf(Multicast, 0)
	plain.HashMode = SourceIP
	old := plain
	old.HashCompat = ClusterIP
	for name, row := range map[string]struct {
		spec                    Spec
		nftables, match, target *fakeBackend
		want                    Backend
		reasons                 int
	}{
		"all":                 {plain, yes(), yes(), yes(), NFTables, 0},
		"no nftables":         {plain, no(), yes(), yes(), Match, 1},
		"hash of the target":  {old, no(), yes(), yes(), Target, 2},
		"another hash":        {plain, no(), no(), yes(), "", 3},
		"none":                {plain, no(), no(), no(), "", 3},
		"a sure one":          {plain, perhaps(), yes(), yes(), Match, 1},
		"none is sure":        {plain, no(), perhaps(), perhaps(), Match, 3},
		"the target, perhaps": {old, no(), yes(), perhaps(), Target, 3},
	} {
		b := &Backends{NFTables: row.nftables, Match: row.match, Target: row.target}
		chosen, reasons, err := b.Choose(t.Context(), row.spec.Layout())
		if chosen != row.want || len(reasons) != row.reasons || (err != nil) != (row.want == "") ||
			err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
			t.Errorf("%s: %q because of %q (%v)", name, chosen, reasons, err)
		}
	}
}

// The one in use is asked first, and nobody is asked once there is one that will do.
func TestCapabilitiesAreAskedForUntilOneWillDo(t *testing.T) {
	lacks := ocf.Errorf(ocf.ErrInstalled, "this kernel lacks it")
	for name, row := range map[string]struct {
		backend  Backend
		nftables *fakeBackend
		want     []Capability
	}{
		"the first will do":       {"", &fakeBackend{}, []Capability{{NFTables, Yes, nil}}},
		"the second will do":      {"", &fakeBackend{lacks: lacks}, []Capability{{NFTables, No, lacks}, {Match, Yes, nil}}},
		"the second is installed": {Match, &fakeBackend{}, []Capability{{Match, Yes, nil}}},
		"the first cannot say": {
			NFTables, &fakeBackend{lacks: lacks, silent: true}, []Capability{{NFTables, Unknown, lacks}, {Match, Yes, nil}},
		},
	} {
		spec := specOf(Multicast, 0)
		spec.HashMode = SourceIP
		layout := spec.Layout()
		layout.Backend = row.backend
		b := &Backends{NFTables: row.nftables, Match: &fakeBackend{}, Target: &fakeBackend{}}
		if got := b.Capabilities(t.Context(), layout); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

func TestStepsGoToTheBackendThatHasTheAddress(t *testing.T) {
	for _, backend := range backends() {
		fakes := map[Backend]*fakeBackend{NFTables: {}, Match: {}, Target: {}}
		b := &Backends{NFTables: fakes[NFTables], Match: fakes[Match], Target: fakes[Target]}
		layout := Layout{Backend: backend, Prefixes: []netip.Prefix{netip.PrefixFrom(vip, 24)}}
		all := []Step{
			InstallTables{Layout: layout},
			ChangeBuckets{Address: vip, Own: []Bucket{1}},
			ChangeBuckets{Address: vip, Release: []Bucket{1}},
			RemoveTables{Address: vip},
		}
		for _, step := range all {
			if err := b.ApplyTables(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		// Another process sees it where it is.
		again := &Backends{NFTables: fakes[NFTables], Match: fakes[Match], Target: fakes[Target]}
		if seen, err := again.ObserveTables(t.Context(), vip); err != nil || !seen.Present {
			t.Errorf("%s: seen %+v (%v)", backend, seen, err)
		}
		if err := again.ApplyTables(t.Context(), all[1]); err != nil {
			t.Fatal(err)
		}
		for name, fake := range fakes {
			if name == backend && len(fake.applied) != len(all)+1 || name != backend && len(fake.applied) > 0 {
				t.Errorf("%s: %s did %q", backend, name, fake.applied)
			}
		}
	}
}

func TestBackendThatCannotBeReadIsNotTakenForEmpty(t *testing.T) {
	broken := errors.New("cannot be read")
	for name, b := range map[string]*Backends{
		"nftables": {NFTables: &fakeBackend{broken: broken}, Match: &fakeBackend{}, Target: &fakeBackend{}},
		"match":    {NFTables: &fakeBackend{}, Match: &fakeBackend{broken: broken}, Target: &fakeBackend{}},
		"target":   {NFTables: &fakeBackend{}, Match: &fakeBackend{}, Target: &fakeBackend{broken: broken}},
	} {
		if _, err := b.ObserveTables(t.Context(), vip); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Layouts(t.Context()); !errors.Is(err, broken) {
			t.Errorf("%s, layouts: %v", name, err)
		}
	}
}

func TestWhatIptablesCannotDo(t *testing.T) {
	for backend, row := range map[Backend]struct {
		compat, other HashCompat
		tooMany       uint32
		names         []string
	}{
		Target: {ClusterIP, XTCluster, 17, []string{"address", "buckets", "mac_mode", "hash_compat", "hash_prefix4", "services"}},
		Match:  {XTCluster, ClusterIP, 33, []string{"address", "buckets", "mac_mode", "hash_compat", "hash_prefix4", "services", "hashmode"}},
	} {
		spec := specOf(Multicast, 0)
		spec.Backend, spec.HashCompat, spec.HashMode = backend, row.compat, SourceIP
		if err := spec.Layout().Fits(backend); err != nil {
			t.Errorf("%s, what it can do: %v", backend, err)
		}
		spec.Addresses = append(spec.Addresses, vip6)
		spec.Buckets, spec.MACMode, spec.HashCompat = row.tooMany, Unicast, row.other
		spec.HashPrefixes.IPv4, spec.Services = 24, []services.Service{services.ICMP}
		spec.HashMode = SourceIPSourcePort
		err := spec.Layout().Fits(backend)
		says := strings.Split(err.Error(), "\n")
		for _, what := range row.names {
			if !slices.ContainsFunc(says, func(line string) bool { return strings.Contains(line, what) }) {
				t.Errorf("%s: %s is not named: %q", backend, what, says)
			}
		}
		if ocf.CodeOf(err) != ocf.ErrConfigured || len(says) != len(row.names) {
			t.Errorf("%s: code %s, %q", backend, ocf.CodeOf(err), says)
		}
	}
}

// An address is never installed in two backends, even if what is there cannot say how it was installed.
func TestOneBackendForAnAddress(t *testing.T) {
	node := freshNode()
	node.Tables = Tables{Present: true, Backend: Target}
	spec := specOf(Multicast, 2)
	spec.HashCompat = ClusterIP
	if layout, err := spec.Admit(node); err != nil || layout.Backend != Target {
		t.Errorf("auto: %q (%v)", layout.Backend, err)
	}
	spec.Backend = NFTables
	if _, err := spec.Admit(node); ocf.CodeOf(err) != ocf.ErrGeneric || !strings.Contains(err.Error(), "backend=clusterip") {
		t.Errorf("another one: %v", err)
	}
}
