package host

import (
	"context"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/etcdtest"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// besideKV is an etcd in which somebody else writes a key just before each of the first writes of it by way of this.
type besideKV struct {
	clientv3.KV
	key   string // its end
	times int
	write func()
}

func (kv *besideKV) Txn(ctx context.Context) clientv3.Txn {
	return etcdtest.Txn(kv.KV.Txn(ctx), func(then []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
		for _, op := range then {
			if op.IsPut() && strings.HasSuffix(string(op.KeyBytes()), kv.key) && kv.times > 0 {
				kv.times--
				kv.write()
			}
		}
		return do()
	})
}

// storeBeside is a second map of the same cluster, whose writes meet those of another broker.
func storeBeside(t *testing.T, client *clientv3.Client, groups int) (*queuemapper.Store, *besideKV) {
	t.Helper()
	kv := &besideKV{KV: client.KV}
	own := clientv3.NewCtxClient(context.Background())
	own.KV, own.Lease, own.Watcher = kv, client.Lease, client.Watcher
	return storeOn(t, own, groups), kv
}

// TestMarkLostBeside: while a log that comes back notes what its disk has lost, the broker that owns the group now writes the group's
// record, again and again. The start goes on, and what is lost is noted.
func TestMarkLostBeside(t *testing.T) {
	client := startEtcd(t)
	owner := storeOn(t, client, 1)
	store, kv := storeBeside(t, client, 1)
	ctx := t.Context()
	open := func(id byte) *queuemapper.Log {
		l, err := owner.ReopenLog(ctx, ident.Log{id}, ident.Broker(id), 1, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	back, other := open(1), open(2)
	publish := func(target *queuemapper.Log, epoch ident.Epoch, ends map[ident.Partition]ident.Offset) {
		t.Helper()
		pub := queuemapper.Publication{Group: owner.Map().Group(0), Target: target, Epoch: epoch, Ends: ends, Frame: ident.Frame{Epoch: 1, Position: ident.Position(epoch)}}
		if cur := pub.Group.Current(); cur != nil {
			pub.Source = owner.Map().Log(cur.Log)
		}
		if err := owner.Publish(ctx, []queuemapper.Publication{pub})[0]; err != nil {
			t.Fatal(err)
		}
	}
	publish(back, 1, nil)
	topic, err := owner.CreateTopic(ctx, queuemapper.NewTopic{Name: "t", Placements: []ident.Group{0}})
	if err != nil {
		t.Fatal(err)
	}
	p := ident.Partition{Topic: topic.ID}
	publish(other, 2, map[ident.Partition]ident.Offset{p: 50})
	await(t, "the map follows", func() bool { return store.Map().Revision() >= owner.Map().Revision() })

	kv.key, kv.times, kv.write = "/pg/0", 3, func() {
		if _, err := owner.Touch(ctx, 0); err != nil {
			t.Error(err)
		}
	}
	disk := []commitlog.RecoveredGeneration{{
		Generation: generationOf(0, &store.Map().Group(0).Generations[0]), Partitions: []ident.PartitionState{{Partition: p, End: 40}},
	}}
	if err := New(ctx, Config{ID: 1, Store: store}).markLost(ctx, commitlog.Recovered{ID: back.ID, Generations: disk}); err != nil {
		t.Fatal(err)
	}
	if lost := store.Map().Group(0).Generations[0].Lost[p]; kv.times != 0 || len(lost) != 1 || lost[0] != (queuemapper.Range{From: 40, To: 50}) {
		t.Errorf("%v is marked as lost, %d writes did not meet", lost, kv.times)
	}
}

// TestAbsentBeside: a broker starts without one of its logs, which the controller seals just when the broker does, or whose witness
// set changes then. The start goes on.
func TestAbsentBeside(t *testing.T) {
	for name, beside := range map[string]func(context.Context, *queuemapper.Store, *queuemapper.Log) (*queuemapper.Log, error){
		"sealed": func(ctx context.Context, s *queuemapper.Store, l *queuemapper.Log) (*queuemapper.Log, error) {
			return s.SealLog(ctx, l)
		},
		"another set": func(ctx context.Context, s *queuemapper.Store, l *queuemapper.Log) (*queuemapper.Log, error) {
			return s.SwapWitnesses(ctx, l, []queuemapper.Witness{{Broker: 7, Incarnation: 1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := startEtcd(t)
			controller := storeOn(t, client, 1)
			store, kv := storeBeside(t, client, 1)
			absent, err := controller.ReopenLog(t.Context(), ident.Log{9}, 1, 1, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the map follows", func() bool { return store.Map().Log(absent.ID) != nil })
			kv.key, kv.times, kv.write = absent.ID.String(), 1, func() {
				if _, err := beside(t.Context(), controller, absent); err != nil {
					t.Error(err)
				}
			}
			hostOf(t, store, Config{ID: 1, Unwitnessed: UnwitnessedWait}, nil)
			if l := store.Map().Log(absent.ID); kv.times != 0 || l.State != queuemapper.LogSealed {
				t.Errorf("the absent log is %+v, %d writes did not meet", l, kv.times)
			}
		})
	}
}
