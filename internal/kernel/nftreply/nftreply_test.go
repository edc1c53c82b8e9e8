package nftreply

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite testdata/replies.txt, and with root and the tag system the replies")

// kinds are the requests whose replies were recorded, by the name of the file in testdata.
var kinds = []struct {
	name    string
	message uint16
	decode  func([]netlink.Message) (string, error)
}{
	{"tables", unix.NFT_MSG_GETTABLE, inText[Table]},
	{"chains", unix.NFT_MSG_GETCHAIN, inText[Chain]},
	{"rules", unix.NFT_MSG_GETRULE, inText[Rule]},
	{"sets", unix.NFT_MSG_GETSET, inText[Set]},
	{"elements", unix.NFT_MSG_GETSETELEM, inText[Elements]},
	{"generation", unix.NFT_MSG_GETGEN, inText[Generation]},
}

// inText decodes replies and prints what they are, one line for each.
func inText[T any](replies []netlink.Message) (string, error) {
	var text strings.Builder
	all, err := All[T](replies)
	for _, one := range all {
		fmt.Fprintf(&text, "%+v\n", one)
	}
	return text.String(), err
}

// String makes a recorded expression readable.
func (e Expression) String() string {
	switch decoded := e.Decode(unix.NFPROTO_IPV4).(type) {
	case nil:
		return e.Name + " (unknown)"
	case *expr.Match:
		return fmt.Sprintf("match %s %d %+v", decoded.Name, decoded.Rev, reflect.ValueOf(decoded.Info).Elem())
	case *expr.Target:
		return fmt.Sprintf("target %s %d %+v", decoded.Name, decoded.Rev, reflect.ValueOf(decoded.Info).Elem())
	default:
		return fmt.Sprintf("%s%+v", e.Name, decoded)
	}
}

func (h *Hook) String() string {
	type plain Hook
	return fmt.Sprintf("%+v", plain(*h))
}

func (v *Verdict) String() string {
	type plain Verdict
	return fmt.Sprintf("%+v", plain(*v))
}

// The replies to dumps of the ruleset in testdata/ruleset.nft, as Linux 6.18 sent them.
func recorded(t testing.TB, name string) []netlink.Message {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var replies []netlink.Message
	for line := range strings.Lines(string(text)) {
		data, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		replies = append(replies, netlink.Message{Data: data})
	}
	return replies
}

func TestRecordedReplies(t *testing.T) {
	var got strings.Builder
	for _, kind := range kinds {
		text, err := kind.decode(recorded(t, kind.name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s:\n%s", kind.name, text)
	}
	const golden = "testdata/replies.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if diff := cmp.Diff(string(want), got.String()); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// attribute builds one that contains others, or data.
func attribute(kind uint16, data any) []byte {
	a := netlink.Attribute{Type: kind}
	switch data := data.(type) {
	case string:
		a.Data = append([]byte(data), 0)
	case []byte:
		a.Data = data
	case [][]byte:
		for _, inner := range data {
			a.Data = append(a.Data, inner...)
		}
	}
	b, err := netlink.MarshalAttributes([]netlink.Attribute{a})
	if err != nil {
		panic(err)
	}
	return b
}

func reply(attributes ...[]byte) []netlink.Message {
	data := []byte{unix.NFPROTO_INET, 0, 0, 0}
	for _, a := range attributes {
		data = append(data, a...)
	}
	return []netlink.Message{{Data: data}}
}

// Linux 6.16 and later attach a chain to all devices with a prefix.
func TestDevicesByPrefix(t *testing.T) {
	devices := attribute(4, [][]byte{attribute(2, "eth"), attribute(1, "lo"), attribute(1, "br0")})
	got, err := inText[Chain](reply(attribute(unix.NFTA_CHAIN_HOOK, [][]byte{devices})))
	if err != nil || !strings.Contains(got, "Devices:{Names:[lo br0] Prefixes:[eth]}") {
		t.Errorf("%s, %v", got, err)
	}
}

// An expression of a known kind in another form than expected is as visible as one of an unknown kind.
func TestExpressionInAnotherForm(t *testing.T) {
	expressionOf := func(name string, data ...[]byte) []byte {
		return attribute(1, [][]byte{attribute(unix.NFTA_EXPR_NAME, name), attribute(unix.NFTA_EXPR_DATA, data)})
	}
	short := []byte{1, 2}
	got, err := inText[Rule](reply(attribute(unix.NFTA_RULE_EXPRESSIONS, [][]byte{
		expressionOf("cmp", attribute(unix.NFTA_CMP_OP, short)),
		expressionOf("byteorder", attribute(unix.NFTA_BYTEORDER_OP, short)),
		expressionOf("immediate", attribute(unix.NFTA_IMMEDIATE_DATA, [][]byte{attribute(unix.NFTA_DATA_VERDICT, short)})),
		expressionOf("match", attribute(unix.NFTA_MATCH_NAME, "tcp"), attribute(unix.NFTA_MATCH_INFO, short)),
		expressionOf("future"),
	})))
	const want = "[cmp (unknown) byteorder (unknown) immediate (unknown) match (unknown) future (unknown)]"
	if err != nil || !strings.Contains(got, want) {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestBrokenReplies(t *testing.T) {
	short := []byte{1, 2}
	for name, replies := range map[string][]netlink.Message{
		"too short for a family":          {{Data: short}},
		"an attribute beyond the end":     {{Data: []byte{1, 0, 0, 0, 200, 0, 1, 0}}},
		"flags of two bytes":              reply(attribute(unix.NFTA_TABLE_FLAGS, short)),
		"an attribute inside that is cut": reply(attribute(unix.NFTA_CHAIN_HOOK, []byte{200, 0, 1, 0})),
	} {
		_, tables := All[Table](replies)
		_, chains := All[Chain](replies)
		if tables == nil && chains == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Whatever comes from the kernel, and whoever made it, a decoder returns.
func FuzzReplies(f *testing.F) {
	for i, kind := range kinds {
		for _, m := range recorded(f, kind.name) {
			f.Add(i, m.Data)
		}
	}
	f.Fuzz(func(_ *testing.T, kind int, data []byte) {
		_, _ = kinds[uint(kind)%uint(len(kinds))].decode([]netlink.Message{{Data: data}})
	})
}
