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
	"time"

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
	decode  func([]netlink.Message) ([]string, error)
}{
	{"tables", unix.NFT_MSG_GETTABLE, inText(Tables)},
	{"chains", unix.NFT_MSG_GETCHAIN, inText(Chains)},
	{"rules", unix.NFT_MSG_GETRULE, inText(Rules)},
	{"sets", unix.NFT_MSG_GETSET, inText(Sets)},
	{"elements", unix.NFT_MSG_GETSETELEM, inText(Elements)},
	{"generation", unix.NFT_MSG_GETGEN, func(replies []netlink.Message) ([]string, error) {
		generation, err := Generation(replies)
		return []string{fmt.Sprint(generation)}, err
	}},
}

// inText prints what a decoder returns, one line for each.
func inText[T any](decode func([]netlink.Message) ([]T, error)) func([]netlink.Message) ([]string, error) {
	return func(replies []netlink.Message) ([]string, error) {
		var lines []string
		decoded, err := decode(replies)
		for _, d := range decoded {
			lines = append(lines, fmt.Sprintf("%+v", d))
		}
		return lines, err
	}
}

// String makes recorded expressions readable.
func (e Expression) String() string {
	switch decoded := e.Decoded.(type) {
	case nil:
		return e.Name + " (unknown)"
	case *expr.Match:
		return fmt.Sprintf("match %s %d %+v", decoded.Name, decoded.Rev, reflect.ValueOf(decoded.Info).Elem())
	case *expr.Target:
		return fmt.Sprintf("target %s %d %+v", decoded.Name, decoded.Rev, reflect.ValueOf(decoded.Info).Elem())
	default:
		return fmt.Sprintf("%s%+v", e.Name, e.Decoded)
	}
}

func (e Element) String() string {
	type plain Element
	verdict := e.Verdict
	e.Verdict = nil
	return fmt.Sprintf("%+v %+v", plain(e), verdict)
}

func (h *Hook) String() string {
	type plain Hook
	return fmt.Sprintf("%+v", plain(*h))
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
		lines, err := kind.decode(recorded(t, kind.name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s:\n%s\n", kind.name, strings.Join(lines, "\n"))
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
	chains, err := Chains(reply(attribute(unix.NFTA_CHAIN_HOOK, [][]byte{
		attribute(nftaHookDevs, [][]byte{attribute(nftaDevicePrefix, "eth"), attribute(1, "lo")}), attribute(unix.NFTA_HOOK_DEV, "lo"),
	})))
	if err != nil || len(chains) != 1 {
		t.Fatalf("%d, %v", len(chains), err)
	}
	if diff := cmp.Diff([]string{"eth*", "lo"}, chains[0].Hook.Devices); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An expression of a known kind in another form than expected is as visible as one of an unknown kind.
func TestExpressionInAnotherForm(t *testing.T) {
	expressionOf := func(name string, data ...[]byte) []byte {
		return attribute(1, [][]byte{attribute(unix.NFTA_EXPR_NAME, name), attribute(unix.NFTA_EXPR_DATA, data)})
	}
	short := []byte{1, 2}
	rules, err := Rules(reply(attribute(unix.NFTA_RULE_EXPRESSIONS, [][]byte{
		expressionOf("cmp", attribute(unix.NFTA_CMP_OP, short)),
		expressionOf("byteorder", attribute(unix.NFTA_BYTEORDER_OP, short)),
		expressionOf("immediate", attribute(unix.NFTA_IMMEDIATE_DATA, [][]byte{attribute(unix.NFTA_DATA_VERDICT, short)})),
		expressionOf("match", attribute(unix.NFTA_MATCH_NAME, "tcp"), attribute(unix.NFTA_MATCH_INFO, short)),
		expressionOf("future"),
	})))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(rules[0].Expressions)
	if want := "[cmp (unknown) byteorder (unknown) immediate (unknown) match (unknown) future (unknown)]"; got != want {
		t.Errorf("%s, want %s", got, want)
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
		_, tables := Tables(replies)
		_, chains := Chains(replies)
		if tables == nil && chains == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestElementThatExpires(t *testing.T) {
	elements, err := Elements(reply(attribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS, [][]byte{attribute(1, [][]byte{
		attribute(unix.NFTA_SET_ELEM_EXPIRATION, []byte{0, 0, 0, 0, 0, 0, 0x0b, 0xb8}),
	})})))
	if err != nil || len(elements) != 1 || !elements[0].Timed || elements[0].Left != 3*time.Second {
		t.Errorf("%+v, %v", elements, err)
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
