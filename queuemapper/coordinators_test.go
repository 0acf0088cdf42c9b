package queuemapper

import (
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestCoordinatorGroups: where a coordinator partition lives is a contract between brokers, and no range of groups has
// many more of them than another one.
func TestCoordinatorGroups(t *testing.T) {
	for _, groups := range []int{1, 7, 8, 50, 64, 1024} {
		m := &Map{cluster: Cluster{Groups: groups}}
		thirds := [3]int{}
		last := ident.Group(0)
		for p := range int32(CoordinatorPartitions) {
			g := m.CoordinatorGroup(p)
			if int(g) < 0 || int(g) >= groups || g < last {
				t.Errorf("%d groups: partition %d lives in group %d, the one before in %d", groups, p, g, last)
			}
			thirds[3*int(g)/groups]++
			last = g
		}
		if groups > 8 && (min(thirds[0], thirds[1], thirds[2]) < 15) {
			t.Errorf("%d groups: %v partitions in each third", groups, thirds)
		}
	}
	m := &Map{cluster: Cluster{Groups: 1024}}
	if got := [...]ident.Group{m.CoordinatorGroup(0), m.CoordinatorGroup(1), m.CoordinatorGroup(49)}; got != [...]ident.Group{0, 20, 1003} {
		t.Errorf("partitions 0, 1 and 49 live in %v", got)
	}
}
