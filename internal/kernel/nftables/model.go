package nftables

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftreply"
)

// A table is one that we install, or one that the kernel lists.
type table struct {
	family nft.TableFamily
	name   string
	flags  uint32 // NFT_TABLE_F_…: a dormant table filters nothing; ours have none
	use    uint32 // how many chains, sets and other objects it holds; 0 in a table that is to be installed
	chains []chain
	sets   []set
}

func (t table) String() string { return familyName(t.family) + " " + t.name }

func (t table) chain(name string) (chain, bool) {
	if i := slices.IndexFunc(t.chains, func(c chain) bool { return c.name == name }); i >= 0 {
		return t.chains[i], true
	}
	return chain{}, false
}

func (t table) set(name string) (set, bool) {
	if i := slices.IndexFunc(t.sets, func(s set) bool { return s.name == name }); i >= 0 {
		return t.sets[i], true
	}
	return set{}, false
}

// holdsMore reports whether a table holds something that is neither chain nor set, such as a named counter or a flowtable.
func (t table) holdsMore() bool { return int(t.use) > len(t.chains)+len(t.sets) }

type chain struct {
	name  string
	base  *base // nil: other chains go to it
	rules []rule
}

// A base is the hook of a base chain.
type base struct {
	kind     nft.ChainType
	hook     nft.ChainHook
	priority nft.ChainPriority
	policy   nft.ChainPolicy
	device   string // netdev only
}

func (b *base) String() string {
	if b == nil {
		return "no hook"
	}
	text := fmt.Sprintf("type %s hook %d priority %d policy %d", b.kind, b.hook, b.priority, b.policy)
	if b.device != "" {
		text += " device " + b.device
	}
	return text
}

type rule struct {
	comment string
	marked  bool // has userdataMark
	exprs   []expr.Any
	unknown []string // names of expressions of kinds that we never install
}

// userdataMark is stored with a rule beside its comment (userdata.TypeComment). nft(8) ignores user data of a type that it does not know: a
// rule without the mark was loaded from a file.
const userdataMark userdata.Type = 200

func newRule(comment string, parts ...[]expr.Any) rule {
	return rule{comment: comment, exprs: slices.Concat(parts...)}
}

// equal compares what rules do, not what they have counted.
func (r rule) equal(other rule) bool {
	return r.comment == other.comment && r.marked == other.marked && slices.Equal(r.unknown, other.unknown) &&
		slices.EqualFunc(r.exprs, other.exprs, func(a, b expr.Any) bool {
			_, aCounts := a.(*expr.Counter)
			_, bCounts := b.(*expr.Counter)
			return aCounts && bCounts || reflect.DeepEqual(a, b)
		})
}

// A set holds integers of 4 bytes in host order, which are bucket numbers or keys of the stamp; or intervals of ports of 2 bytes in network
// order; or the keys of takeovers.
type set struct {
	name       string
	keyLength  uint32 // in bytes
	dataLength uint32 // of a map
	buckets    uint32 // how many buckets the keys may number, if nft(8) is to print them so; else 0
	flags      uint32 // NFT_SET_…
	emptied    bool   // it is to be emptied when it is repaired: of takeovers
	elements   []element
	counters   map[uint32]nftreply.Expression // by the keys of elements, still encoded; nil in a set that is to be installed
}

const keyLength = 4

type element struct {
	key     uint32
	long    []byte // the key, if it is longer than 4 bytes: of setKeys, whose key has the bucket
	value   []byte // in a map
	all     bool   // without a key: it stands for all keys that the set lacks (NFT_SET_ELEM_CATCHALL)
	end     bool   // of an interval: the first key behind it
	comment string
	counted bool
	timed   bool          // the kernel removes it
	left    time.Duration // until then
}

// commentOf marks an element of a set of buckets as ours, and shows an admin to which instance it belongs.
func commentOf(resource string, bucket clusterip.Bucket) string {
	const longest = 100 // nft(8) allows 128, with the number
	if resource == "" || len(resource) > longest {
		resource = "bucket"
	}
	return fmt.Sprintf("%s:%d", resource, bucket)
}

func (e element) equal(other element) bool { return reflect.DeepEqual(e, other) }

func (e element) isOurs() bool { return strings.HasSuffix(e.comment, fmt.Sprintf(":%d", e.key)) }
