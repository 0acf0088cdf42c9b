package broker

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
	"github.com/skeinmq/skein/queuemapper"
)

// roomFS is the real file system, which says that so much is free.
type roomFS struct {
	vfs.FS
	free atomic.Int64
}

func (f *roomFS) Space(string) (vfs.Space, error) {
	return vfs.Space{Total: 1 << 40, Available: f.free.Load()}, nil
}

func withRoom(free int64) *roomFS {
	f := &roomFS{FS: vfs.OS()}
	f.free.Store(free)
	return f
}

// TestFullDisk: a broker whose disk is full says so in the map, gets no new partitions, and counts what it refuses as load,
// or the balancer would never know that somebody wants to write there. With room it takes what it is given.
func TestFullDisk(t *testing.T) {
	disks := make(map[ident.Broker]*roomFS)
	cs := startBrokersOn(t, 2, 1, Config{}, nil, func(c *cluster) {
		disks[c.id] = withRoom(900 << 30)
		c.fs = disks[c.id]
	})
	a, b, disk := cs[0], cs[1], disks[1]
	for g := range ident.Group(4) {
		moveAcross(t, a, b, g)
	}
	topic := a.topic("t", 2, nil)
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil && !m.Full(1) && !m.Full(2) })
	}
	index := int32(slices.Index(a.owners("t"), 1))
	if index < 0 {
		t.Fatalf("the topic is at brokers %d", a.owners("t"))
	}
	write := func() error {
		cl := a.client(kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer cl.Close()
		return cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Partition: index, Value: []byte("v")}).FirstErr()
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	disk.free.Store(0)
	b.await(func(m *queuemapper.Map) bool { return m.Full(1) })
	for end := time.Now().Add(enough); ; {
		err := write()
		if errors.Is(err, kerr.KafkaStorageError) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("write to a full disk: %v", err)
		}
	}
	a.b.sampledLong()
	a.b.Loads() // of what was written
	if err := write(); !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("write to a full disk: %v", err)
	}
	a.b.sampledLong()
	group := a.b.store.Map().TopicByID(topic.id).Partitions[index][0].Group
	if got := a.b.Loads(); len(got) != 1 || got[0].Group != int32(group) || got[0].BytesIn == 0 {
		t.Errorf("loads of what was refused: %v", got)
	}
	if b.topic("u", 6, nil); slices.Contains(b.owners("u"), 1) {
		t.Errorf("a full broker got new partitions: %v", b.owners("u"))
	}
	if views := b.b.viewBrokers(); !views[0].Full || views[1].Full {
		t.Errorf("brokers: %+v", views)
	}
	disk.free.Store(900 << 30)
	b.await(func(m *queuemapper.Map) bool { return !m.Full(1) })
	if err := write(); err != nil {
		t.Errorf("there is room: %v", err)
	}
	if b.topic("w", 6, nil); !slices.Contains(b.owners("w"), 1) {
		t.Errorf("with room a broker got no new partitions: %v", b.owners("w"))
	}
}
