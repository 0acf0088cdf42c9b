package host

import (
	"context"
	"maps"
	"testing"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// TestLostAfterSplit: partition 1 lives in group 0 up to offset 55, is split into group 1, and ends there at 80, partition
// 2 lives in group 1 from the start and ends at 30. A disk that lost generations has lost what was in them, and nothing else.
func TestLostAfterSplit(t *testing.T) {
	store := witnessStore(t)
	ctx := t.Context()
	open := func(id byte, host ident.Broker) *queuemapper.Log {
		l, err := store.ReopenLog(ctx, ident.Log{id}, host, 1, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	mine, other := open(1, 1), open(2, 2)
	position := ident.Position(0)
	next := func(g ident.Group, target *queuemapper.Log, epoch ident.Epoch, ends map[ident.Partition]ident.Offset) queuemapper.Publication {
		position++
		pub := queuemapper.Publication{Group: store.Map().Group(g), Target: target, Epoch: epoch, Ends: ends, Frame: ident.Frame{Epoch: target.Epoch, Position: position}}
		if cur := pub.Group.Current(); cur != nil {
			pub.Source = store.Map().Log(cur.Log)
		}
		return pub
	}
	publish := func(pubs ...queuemapper.Publication) {
		t.Helper()
		for _, err := range store.Publish(ctx, pubs) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(next(0, mine, 1, nil), next(1, mine, 1, nil))
	topic, err := store.CreateTopic(ctx, queuemapper.NewTopic{Name: "t", Placements: []ident.Group{0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	part := func(i int32) ident.Partition { return ident.Partition{Topic: topic.ID, Index: i} }
	err = store.SplitPartition(ctx, queuemapper.Split{Topic: topic, Index: 1,
		Source: next(0, mine, 2, map[ident.Partition]ident.Offset{part(0): 10, part(1): 55}),
		Target: next(1, mine, 2, map[ident.Partition]ident.Offset{part(2): 20})})
	if err != nil {
		t.Fatal(err)
	}
	publish(next(0, other, 3, map[ident.Partition]ident.Offset{part(0): 15}), next(1, other, 3, map[ident.Partition]ident.Offset{part(1): 80, part(2): 30}))

	// The disk still has the first generation of group 0, up to offset 40 of partition 1.
	disk := []commitlog.RecoveredGeneration{{
		Generation: generationOf(0, &store.Map().Group(0).Generations[0]),
		Partitions: []ident.PartitionState{{Partition: part(0), End: 10}, {Partition: part(1), End: 40}},
	}}
	h := New(context.Background(), Config{ID: 1, Store: store})
	for range 2 { // the second time nothing is new
		if err := h.markLost(ctx, commitlog.Recovered{ID: mine.ID, Generations: disk}); err != nil {
			t.Fatal(err)
		}
	}
	type lost map[ident.Partition]queuemapper.Range
	for g, want := range [][]lost{
		{{part(1): {From: 40, To: 55}}, {part(0): {From: 10, To: 15}}, {}},
		{{part(2): {To: 20}}, {part(1): {From: 55, To: 80}, part(2): {From: 20, To: 30}}, {}},
	} {
		for i, gen := range store.Map().Group(ident.Group(g)).Generations {
			got := make(lost)
			for p, ranges := range gen.Lost {
				if len(ranges) != 1 {
					t.Errorf("group %d epoch %d: %v lost of %v", g, gen.Epoch, ranges, p)
				}
				got[p] = ranges[0]
			}
			if !maps.Equal(got, want[i]) {
				t.Errorf("group %d epoch %d: %v is lost, want %v", g, gen.Epoch, got, want[i])
			}
		}
	}
}
