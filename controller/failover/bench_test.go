package failover

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// quick answers at once: what is measured is this package and the map.
type quick struct{ table Table }

func (q quick) Seal(context.Context, queuemapper.Witness, ident.Log, ident.LogEpoch) (Table, error) {
	return q.table, nil
}

func (q quick) Prepare(_ context.Context, _ ident.Broker, _ ident.Log, epoch ident.LogEpoch, openings []Opening) ([]ident.Frame, error) {
	out := make([]ident.Frame, len(openings))
	for i := range out {
		out[i] = ident.Frame{Epoch: epoch, Position: ident.Position(i)}
	}
	return out, nil
}

// BenchmarkFailOver is what a dead broker that owns a third of so many partitions costs: from the decision to the map
// that all see, on an embedded etcd that writes to the disk, each partition with data and a producer.
func BenchmarkFailOver(b *testing.B) {
	for _, partitions := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(partitions), func(b *testing.B) {
			srv, err := embedded.Start(b.Context(), embedded.Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer srv.Close()
			s := openStore(b, queuemapper.Config{
				Client: srv.Client(), Groups: 1024, Logger: slog.New(slog.DiscardHandler), MaxOps: embedded.MaxOps, MaxBytes: embedded.MaxBytes,
			})
			logs := bigCluster(b, s, partitions)
			var q quick
			f, err := New(Config{
				Store: s, Members: &q, Targets: &q, Standing: func(ident.Broker) Standing { return Live }, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			var sum Report
			rounds := 0
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				dead := logs[i%len(logs)]
				q.table = fill(s, dead, i)
				b.StartTimer()
				r := f.FailOver(b.Context(), dead)
				b.StopTimer()
				if r.Outcome() != Done || r.Groups < 300 {
					b.Fatalf("%+v", r)
				}
				sum.Seal, sum.Prepare, sum.Publish, sum.Total = sum.Seal+r.Seal, sum.Prepare+r.Prepare, sum.Publish+r.Publish, sum.Total+r.Total
				rounds++
				giveBack(b, s, dead, q.table)
				b.StartTimer()
			}
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(rounds) }
			b.ReportMetric(ms(sum.Seal), "seal-ms")
			b.ReportMetric(ms(sum.Prepare), "prepare-ms")
			b.ReportMetric(ms(sum.Publish), "publish-ms")
			b.ReportMetric(ms(sum.Total), "total-ms")
		})
	}
}

// bigCluster has three logs with a third of the groups each, and topics of 100 partitions.
func bigCluster(b *testing.B, s *queuemapper.Store, partitions int) []ident.Log {
	logs := []ident.Log{{15: 1}, {15: 2}, {15: 3}}
	for i, id := range logs {
		if _, err := s.ReopenLog(b.Context(), id, ident.Broker(i+1), 1, 0, []queuemapper.Witness{{Broker: ident.Broker(i+1)%3 + 1, Incarnation: 1}}); err != nil {
			b.Fatal(err)
		}
	}
	var pubs []queuemapper.Publication
	for g := range s.Map().Groups() {
		pubs = append(pubs, queuemapper.Publication{Group: g, Target: s.Map().Log(logs[int(g.ID)%3]), Epoch: 1, Frame: ident.Frame{Epoch: 1, Position: ident.Position(g.ID)}, Ceiling: queuemapper.ReserveDefault})
	}
	for _, err := range s.Publish(b.Context(), pubs) {
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range partitions / 100 {
		if _, err := s.CreateTopic(b.Context(), queuemapper.NewTopic{Name: fmt.Sprintf("topic-%04d", i), Placements: s.Map().PlaceNew(ident.Topic{}, 0, 100)}); err != nil {
			b.Fatal(err)
		}
	}
	return logs
}

// fill makes the table of a log: every partition has got data and has one producer.
func fill(s *queuemapper.Store, log ident.Log, round int) Table {
	m := s.Map()
	out := make(Table)
	for topic := range m.Topics() {
		for i, pl := range topic.Partitions {
			g := m.Group(pl[0].Group)
			if g.Current().Log != log {
				continue
			}
			p := ident.Partition{Topic: topic.ID, Index: int32(i)}
			gen := named(g, g.Current())
			out[gen] = append(out[gen], ident.PartitionState{
				Partition: p, End: ident.Offset(1_000_000*(round+1) + i),
				Producers: []ident.ProducerState{{ID: int64(i), CoordinatorEpoch: -1, TxnStart: -1, Batches: make([]ident.ProducerBatch, 5)}},
			})
		}
	}
	return out
}

// giveBack opens the log again and moves its groups back, without ends, so that the records do not grow without bound.
func giveBack(b *testing.B, s *queuemapper.Store, log ident.Log, table Table) {
	rec := s.Map().Log(log)
	if _, err := s.ReopenLog(b.Context(), log, rec.Host, rec.Incarnation, rec.Epoch, rec.Witnesses); err != nil {
		b.Fatal(err)
	}
	m := s.Map()
	var pubs []queuemapper.Publication
	for gen := range table {
		g := m.Group(gen.Group)
		pubs = append(pubs, queuemapper.Publication{
			Group: g, Source: m.Log(g.Current().Log), Target: m.Log(log), Epoch: g.Current().Epoch + 1,
			Frame: ident.Frame{Epoch: m.Log(log).Epoch, Position: ident.Position(g.ID)}, Ceiling: g.Current().Ceiling,
		})
	}
	for _, err := range s.Publish(b.Context(), pubs) {
		if err != nil {
			b.Fatal(err)
		}
	}
}
