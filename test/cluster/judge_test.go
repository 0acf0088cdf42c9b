package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// placed is a record where a reader found it.
type placed struct {
	offset int64
	value  string
}

// judge compares what was read of one partition from its start to its end with what was acknowledged, and says what is wrong:
// offsets have no gaps, and the records are those that were acknowledged, each once, in that order. Between them may be
// those that had no answer.
func judge(acked []string, doubtful map[string]bool, read []placed) (wrong []string) {
	var known []string
	for i, r := range read {
		if r.offset != int64(i) {
			wrong = append(wrong, fmt.Sprintf("offset %d after %d records", r.offset, i))
		}
		if !doubtful[r.value] {
			known = append(known, r.value)
		}
	}
	if !slices.Equal(known, acked) {
		wrong = append(wrong, fmt.Sprintf("acknowledged %v, read %v", acked, read))
	}
	return wrong
}

// TestJudge plants one mistake at a time; the judge must name it.
func TestJudge(t *testing.T) {
	acked, doubtful := []string{"a", "b", "c", "d"}, map[string]bool{"x": true}
	read := func(values ...string) (out []placed) {
		for i, v := range values {
			out = append(out, placed{int64(i), v})
		}
		return out
	}
	jump := read("a", "b", "c", "d")
	jump[2].offset, jump[3].offset = 3, 4
	again := read("a", "b", "c", "d")
	again[3].offset = 2
	for _, c := range []struct {
		name string
		read []placed
		want string // "": nothing is wrong
	}{
		{"sound", read("a", "b", "c", "d"), ""},
		{"one without an answer is there", read("a", "x", "b", "c", "d"), ""},
		{"the first is lost", read("b", "c", "d"), "acknowledged"},
		{"one is lost", read("a", "c", "d"), "acknowledged"},
		{"the last is lost", read("a", "b", "c"), "acknowledged"},
		{"all are lost", nil, "acknowledged"},
		{"one is lost, and one without an answer in its place", read("a", "x", "c", "d"), "acknowledged"},
		{"one is doubled", read("a", "b", "b", "c", "d"), "acknowledged"},
		{"the last is doubled", read("a", "b", "c", "d", "d"), "acknowledged"},
		{"all are doubled", read("a", "b", "c", "d", "a", "b", "c", "d"), "acknowledged"},
		{"two are swapped", read("a", "c", "b", "d"), "acknowledged"},
		{"one of another partition", read("a", "b", "c", "d", "e"), "acknowledged"},
		{"offsets jump", jump, "offset 3 after 2 records"},
		{"an offset comes twice", again, "offset 2 after 3 records"},
	} {
		wrong := judge(acked, doubtful, c.read)
		if c.want == "" && len(wrong) > 0 || c.want != "" && (len(wrong) == 0 || !strings.HasPrefix(wrong[0], c.want)) {
			t.Errorf("%s: %q, want %q", c.name, wrong, c.want)
		}
	}
}
