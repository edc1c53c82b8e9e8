package clusterip

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/internal/ocf"
)

func anyKey() TakeoverKey {
	return TakeoverKey{Secret: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Token: [4]byte{0xa, 0xb, 0xc, 0xd}}
}

func TestTakeoverKeyIsReadBack(t *testing.T) {
	const text = "01020304050607080a0b0c0d"
	if got := anyKey().String(); got != text {
		t.Errorf("it is written %s", got)
	}
	if got, err := ParseTakeoverKey(text); err != nil || got != anyKey() {
		t.Errorf("it is read as %v, %v", got, err)
	}
	for _, bad := range []string{"", text[2:], text + "0e", text[1:], "zz" + text[2:], " " + text} {
		if got, err := ParseTakeoverKey(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

func TestTakeoverFrames(t *testing.T) {
	const bucket Bucket = 0x01020304
	request, done := TakeoverFrame(anyKey(), bucket, TakeoverRequested, 7), TakeoverFrame(anyKey(), bucket, TakeoverDone, 0)
	if diff := cmp.Diff([]byte{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 7}, request); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]byte{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0}, done); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	confirmation := append(request[:TakeoverTokenAt:TakeoverTokenAt], 0xa, 0xb, 0xc, 0xd)
	changed := func(at int) []byte {
		other := append([]byte(nil), confirmation...)
		other[at]++
		return other
	}
	for name, row := range map[string]struct {
		payload []byte
		want    bool
	}{
		"the confirmation": {confirmation, true},
		"with padding":     {append(slices.Clip(confirmation), make([]byte, 30)...), true},
		"the request":      {request, false}, // which comes back where a switch has a loop
		"its end":          {done, false},
		"another secret":   {changed(TakeoverSecretAt), false},
		"another bucket":   {changed(TakeoverBucketAt + 3), false},
		"another token":    {changed(TakeoverTokenAt), false},
		"cut off":          {confirmation[:len(confirmation)-1], false},
		"nothing":          {nil, false},
	} {
		if got := ConfirmsTakeover(row.payload, anyKey(), bucket); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if number, ok := TakeoverNumber(request); !ok || number != 7 {
		t.Errorf("the request has number %d (%t)", number, ok)
	}
	if _, ok := TakeoverNumber(confirmation); ok {
		t.Error("what was cut off has a number")
	}
}

// The time for which a bucket lingers ends with its drain at the latest, because the tables may go then.
func TestLingerEndsWithTheDrain(t *testing.T) {
	for _, row := range []struct{ drain, linger, want time.Duration }{
		{0, 3 * time.Second, 0},
		{2 * time.Second, 3 * time.Second, 2 * time.Second},
		{time.Minute, 3 * time.Second, 3 * time.Second},
		{time.Minute, 0, 0},
	} {
		values := valuesOf(map[string]any{"ip": []netip.Addr{vip}, "drain": row.drain, "linger": row.linger})
		spec, err := NewSpec(values, "web-ip", ocf.Clone{Buckets: 8})
		if err != nil || spec.Linger != row.want {
			t.Errorf("drain %s, linger %s: it lingers for %s (%v)", row.drain, row.linger, spec.Linger, err)
		}
		spec.Backend = NFTables
		layout, err := spec.Resolve(nodeWithMAC(ownMAC()))
		if lingers := !layout.Lingers.IsZero(); err != nil || lingers != (row.want > 0) || lingers && layout.Lingers != ownMAC() {
			t.Errorf("drain %s, linger %s: packets are passed on from %s (%v)", row.drain, row.linger, layout.Lingers, err)
		}
	}
}

func ownMAC() MAC { return MAC{2, 0, 0, 0, 1, 1} }

func nodeWithMAC(own MAC) State {
	node := freshNode()
	node.NICs[0].MAC = own
	return node
}

// lingeringLayout is one in which buckets can linger.
func lingeringLayout(t *testing.T) Layout {
	t.Helper()
	spec := specOf(Multicast, 0)
	spec.Drain, spec.Linger = time.Minute, 3*time.Second
	layout, err := spec.Resolve(nodeWithMAC(ownMAC()))
	if err != nil {
		t.Fatal(err)
	}
	layout.Backend = NFTables
	return layout
}

func TestStampOfLingering(t *testing.T) {
	layout := lingeringLayout(t)
	stamp := layout.Stamp()
	if want := " drain=yes linger_from=02:00:00:00:01:01"; !strings.Contains(stamp, want) {
		t.Errorf("%q does not contain %q", stamp, want)
	}
	if got, err := ParseStamp(layout.Schema, stamp); err != nil || !reflect.DeepEqual(got, layout) {
		t.Errorf("it is read as %+v, %v", got, err)
	}
	if spec := layout.Spec(); spec.Linger == 0 {
		t.Error("its parameter linger is 0")
	}
	for name, bad := range map[string]string{
		"without a drain": strings.Replace(stamp, " drain=yes", "", 1),
		"no MAC":          strings.Replace(stamp, "linger_from=02", "linger_from=yes", 1),
	} {
		if got, err := ParseStamp(layout.Schema, bad); err == nil {
			t.Errorf("%s: %q is taken for %+v", name, bad, got)
		}
	}
	layout.Lingers = MAC{}
	if stamp := layout.Stamp(); strings.Contains(stamp, "linger") {
		t.Errorf("without lingering: %q", stamp)
	}
}

// Packets are passed on from the interface's own MAC, so the tables follow it. What lingers there goes on.
func TestPlanInterface(t *testing.T) {
	other := MAC{2, 0, 0, 0, 9, 9}
	for name, row := range map[string]struct {
		change func(*State)
		want   MAC // in the tables that are installed; zero: none are
	}{
		"nothing changed":          {func(*State) {}, MAC{}},
		"another MAC":              {func(s *State) { s.NICs[0].MAC = other }, other},
		"the interface has no MAC": {func(s *State) { s.NICs[0].MAC = MAC{} }, MAC{}},
		"the interface is gone":    {func(s *State) { s.NICs = nil }, MAC{}},
		"damaged tables":           {func(s *State) { s.NICs[0].MAC, s.Tables.Faults = other, []string{"rule is missing"} }, MAC{}},
		"nothing lingers":          {func(s *State) { s.NICs[0].MAC, s.Tables.Installed.Lingers = other, MAC{} }, MAC{}},
		"the stamp cannot be read": {func(s *State) { s.NICs[0].MAC, s.Tables.Installed = other, nil }, MAC{}},
		"IPv6 only, with other MAC": {func(s *State) {
			s.NICs[0].MAC, s.Tables.Installed.Prefixes = other, []netip.Prefix{netip.PrefixFrom(vip6, 64)}
		}, other},
	} {
		t.Run(name, func(t *testing.T) {
			layout := lingeringLayout(t)
			seen := nodeWithMAC(ownMAC())
			seen.Tables = Tables{
				Present: true, Backend: NFTables, Installed: &layout, Owned: []Bucket{2},
				Moves: Moves{Draining: []Drain{{5, time.Minute}}, Announced: []Bucket{5}}, Lingering: []Linger{{Bucket: 5, Left: time.Second}},
			}
			row.change(&seen)
			step, changed := PlanInterface(seen)
			if changed != !row.want.IsZero() || step.Layout.Lingers != row.want {
				t.Fatalf("changed: %t, to %s", changed, step.Layout.Lingers)
			}
			if !changed {
				return
			}
			want := *seen.Tables.Installed
			want.Lingers = row.want
			if diff := cmp.Diff(want.Stamp(), step.Layout.Stamp()); diff != "" {
				t.Errorf("stamp (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(seen.Tables.Moves, step.Moves); diff != "" || !reflect.DeepEqual(step.Keep, seen.Tables.Owned) {
				t.Errorf("it keeps buckets %v; moves (-want +got):\n%s", step.Keep, diff)
			}
		})
	}
}

func TestLingersOfTables(t *testing.T) {
	tables := Tables{Lingering: []Linger{{Bucket: 2, Left: time.Second}, {Bucket: 5}}, Lingered: []Bucket{2, 3, 5, 7}}
	if l, lingers := tables.Lingers(2); !lingers || l.Left != time.Second {
		t.Errorf("bucket 2: %t, %s", lingers, l.Left)
	}
	for _, bucket := range []Bucket{3, 4} {
		if l, lingers := tables.Lingers(bucket); lingers {
			t.Errorf("bucket %d lingers for %s", bucket, l.Left)
		}
	}
	if diff := cmp.Diff([]Bucket{3, 7}, tables.EndedLingers()); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Bucket(nil), Tables{}.EndedLingers(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("of nothing (-want +got):\n%s", diff)
	}
}

// The BPF program passes what the tables remember of a bucket that is taken over, and that is no fault.
func TestServedAreThoseExpectedToo(t *testing.T) {
	tables := Tables{
		Owned: []Bucket{5}, Expecting: []Bucket{1, 5}, Moves: Moves{Draining: []Drain{{Bucket: 3}}}, Lingering: []Linger{{Bucket: 3}},
	}
	if diff := cmp.Diff([]Bucket{1, 3, 5}, tables.served()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
