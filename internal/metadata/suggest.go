package metadata

import "strings"

// Suggest returns the parameter that an unknown name may be a misspelling of. ok is false if none is similar: at most two letters may be
// wrong, missing or extra, and at least half of them must be right.
func Suggest(unknown string) (name string, ok bool) {
	best := 3
	for _, p := range Parameters() {
		if d := distance(strings.ToLower(unknown), p.Name); d < best && 2*d <= len(p.Name) {
			best, name = d, p.Name
		}
	}
	return name, name != ""
}

// distance returns the number of bytes to change, insert or delete to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
