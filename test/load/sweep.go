package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/history"
)

// Sweeper is an idempotent producer that writes one record to every partition at a time: for clusters with more partitions
// than the producers of Begin come around to.
type Sweeper struct {
	l   *Load
	id  int32
	cl  *kgo.Client
	rng *rand.Rand
}

// NewSweeper makes one; the ids of Begin's producers are taken, where that is used.
func (l *Load) NewSweeper(id int32) (*Sweeper, error) {
	l.H.Producer(id, true)
	cl, err := l.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1), kgo.StopProducerOnDataLossDetected(),
		kgo.MaxBufferedRecords(1<<20), kgo.ProducerLinger(5*time.Millisecond), kgo.MetadataMaxAge(time.Minute))
	if err != nil {
		return nil, err
	}
	return &Sweeper{l: l, id: id, cl: cl, rng: rand.New(rand.NewPCG(l.Seed, uint64(id)))}, nil
}

// Close ends it.
func (s *Sweeper) Close() { s.cl.Close() }

// Sweep writes a record to every partition and returns when all are acked. What is refused goes to the history.
func (s *Sweeper) Sweep(ctx context.Context) error {
	before := s.l.Acked()
	total := int64(0)
	for _, t := range s.l.Topics {
		for i := range t.Partitions {
			s.l.send(s.cl, s.rng, history.Partition{Topic: t.Name, Index: i}, s.id, producerKind{size: 100})
			total++
		}
	}
	if err := s.cl.Flush(ctx); err != nil {
		return fmt.Errorf("sweep of producer %d: %d of %d records are not acked: %w", s.id, s.cl.BufferedProduceRecords(), total, err)
	}
	if n := s.l.Acked() - before; n < total {
		return fmt.Errorf("sweep of producer %d: %d of %d records were acked", s.id, n, total)
	}
	return nil
}
