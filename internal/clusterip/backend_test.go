package clusterip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// A fakeBackend is a TableKernel that holds what it is told.
type fakeBackend struct {
	tables  Tables
	applied []string
	lacks   error // why it cannot be used
	broken  error // of reading
}

func (b *fakeBackend) ObserveTables(context.Context, netip.Addr) (Tables, error) {
	return b.tables, b.broken
}

func (b *fakeBackend) ApplyTables(_ context.Context, step Step) error {
	b.applied = append(b.applied, step.String())
	if lay, ok := step.(LayTables); ok {
		b.tables = Tables{Present: true, Laid: &lay.Layout}
	}
	return nil
}

func (b *fakeBackend) Layouts(context.Context) ([]Layout, error) {
	if b.tables.Laid == nil {
		return nil, b.broken
	}
	return []Layout{*b.tables.Laid}, b.broken
}

func (b *fakeBackend) Supports(context.Context, Layout) error { return b.lacks }

func TestBackendIsChosen(t *testing.T) {
	no := ocf.Errorf(ocf.ErrInstalled, "this kernel lacks it")
	for name, row := range map[string]struct {
		nftables, target error
		want             Backend
		reasons          int
	}{
		"both":          {nil, nil, NFTables, 0},
		"nftables only": {nil, no, NFTables, 0},
		"target only":   {no, nil, Target, 1},
		"none":          {no, no, "", 2},
	} {
		b := &Backends{NFTables: &fakeBackend{lacks: row.nftables}, Target: &fakeBackend{lacks: row.target}}
		chosen, reasons, err := b.Choose(t.Context(), Layout{})
		if chosen != row.want || len(reasons) != row.reasons || (err != nil) != (row.want == "") || err != nil && ocf.CodeOf(err) != ocf.ErrInstalled {
			t.Errorf("%s: %q because of %q (%v)", name, chosen, reasons, err)
		}
	}
}

func TestStepsGoToTheBackendThatHasTheAddress(t *testing.T) {
	for _, backend := range []Backend{NFTables, Target} {
		nftables, target := &fakeBackend{}, &fakeBackend{}
		b := &Backends{NFTables: nftables, Target: target}
		layout := Layout{Backend: backend, Prefixes: []netip.Prefix{vip24}}
		all := []Step{
			LayTables{Layout: layout}, Own{Address: vip, Buckets: []Bucket{1}}, Disown{Address: vip, Buckets: []Bucket{1}}, RemoveTables{Address: vip},
		}
		for _, step := range all {
			if err := b.ApplyTables(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		// Another process sees it where it is.
		again := &Backends{NFTables: nftables, Target: target}
		if seen, err := again.ObserveTables(t.Context(), vip); err != nil || !seen.Present {
			t.Errorf("%s: seen %+v (%v)", backend, seen, err)
		}
		if err := again.ApplyTables(t.Context(), all[1]); err != nil {
			t.Fatal(err)
		}
		used, unused := nftables, target
		if backend == Target {
			used, unused = target, nftables
		}
		if len(used.applied) != len(all)+1 || len(unused.applied) > 0 {
			t.Errorf("%s: nftables did %q, the target %q", backend, nftables.applied, target.applied)
		}
	}
}

func TestBackendThatCannotBeReadIsNotTakenForEmpty(t *testing.T) {
	broken := errors.New("cannot be read")
	for name, b := range map[string]*Backends{
		"nftables": {NFTables: &fakeBackend{broken: broken}, Target: &fakeBackend{}},
		"target":   {NFTables: &fakeBackend{}, Target: &fakeBackend{broken: broken}},
	} {
		if _, err := b.ObserveTables(t.Context(), vip); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Layouts(t.Context()); !errors.Is(err, broken) {
			t.Errorf("%s, layouts: %v", name, err)
		}
	}
}

func TestWhatTheTargetCannotDo(t *testing.T) {
	spec := specOf(Multicast, 0)
	spec.Backend, spec.HashCompat = Target, ClusterIP
	if err := spec.layout().FitsTarget(); err != nil {
		t.Errorf("what it can do: %v", err)
	}
	spec.Addresses = append(spec.Addresses, vip6)
	spec.Buckets, spec.MACMode, spec.HashCompat, spec.HashPrefixes.IPv4, spec.Services = 17, Unicast, XTCluster, 24, []ocf.Service{ocf.ICMP}
	err := spec.layout().FitsTarget()
	says := strings.Split(err.Error(), "\n")
	for _, what := range []string{"address", "buckets", "mac_mode", "hash_compat", "hash_prefix4", "services"} {
		if !slices.ContainsFunc(says, func(line string) bool { return strings.Contains(line, what) }) {
			t.Errorf("%s is not named: %q", what, says)
		}
	}
	if ocf.CodeOf(err) != ocf.ErrConfigured {
		t.Errorf("code %s", ocf.CodeOf(err))
	}
}

// An address is never laid in two backends, even if what is there cannot say how it was laid.
func TestOneBackendForAnAddress(t *testing.T) {
	node := runningNode(t, Multicast, 2)
	node.Tables.Laid, node.Tables.Owned, node.Tables.Backend = nil, nil, Target
	spec := specOf(Multicast, 2)
	spec.HashCompat = ClusterIP
	if layout, err := spec.admit(node); err != nil || layout.Backend != Target {
		t.Errorf("auto: %q (%v)", layout.Backend, err)
	}
	spec.Backend = NFTables
	if _, err := spec.admit(node); ocf.CodeOf(err) != ocf.ErrGeneric || !strings.Contains(err.Error(), "backend=clusterip") {
		t.Errorf("another one: %v", err)
	}
}
