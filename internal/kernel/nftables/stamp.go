package nftables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// A key of the set schema consists of, from the lowest bits on, the schema, the number of the stamp's part, and how many parts follow the
// first. So the key of a stamp of one part is the schema.
const (
	schemaBits     = 16
	stampPartBits  = 8
	stampPartShift = schemaBits
	moreShift      = schemaBits + stampPartBits
)

func schemaKey(schema, part, more int) uint32 {
	return uint32(schema) | uint32(part)<<stampPartShift | uint32(more)<<moreShift
}

// maxComment is the longest that nft(8) loads (NFTNL_UDATA_COMMENT_MAXLEN).
const maxComment = 128

// schemaSet holds the stamp: one element for each part that a comment can hold.
func schemaSet(layout clusterip.Layout) set {
	parts := slices.Collect(slices.Chunk([]byte(layout.Stamp()), maxComment))
	s := set{name: setSchema, keyLength: keyLength}
	for i, part := range parts {
		s.elements = append(s.elements, element{key: schemaKey(layout.Schema, i, len(parts)-1), comment: string(part)})
	}
	return s
}

// stampOf reads the layout from the table that has the stamp, the netdev table.
func stampOf(tables []table) (clusterip.Layout, error) {
	for _, t := range tables {
		if s, _ := t.set(setSchema); len(s.elements) > 0 {
			return t.layoutIn(s)
		}
	}
	return clusterip.Layout{}, fmt.Errorf("table netdev %s or its stamp (set %s) is missing", tables[0].name, setSchema)
}

func (t table) layoutIn(s set) (clusterip.Layout, error) {
	parts := inOrder(s.elements)
	schema := int(parts[0].key & (1<<schemaBits - 1))
	var stamp strings.Builder
	for i, part := range parts {
		if part.key != schemaKey(schema, i, len(parts)-1) {
			return clusterip.Layout{}, fmt.Errorf("the stamp of table %s is incomplete", t)
		}
		stamp.WriteString(part.comment)
	}
	layout, err := clusterip.ParseStamp(schema, stamp.String())
	if err != nil {
		return layout, fmt.Errorf("the stamp of table %s cannot be read: %w", t, err)
	}
	if tableName(layout.Address()) != t.name {
		return layout, fmt.Errorf("the stamp of table %s names another address, %s", t, layout.Address())
	}
	return layout, nil
}

// inOrder sorts elements, which the kernel lists in any order.
func inOrder(elements []element) []element {
	return slices.SortedFunc(slices.Values(elements), func(a, b element) int { return cmp.Compare(a.key, b.key) })
}
