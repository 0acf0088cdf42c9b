package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Scale are the figures of one broker with 100,000 partitions.
type Scale struct {
	FirstAckSecs float64 `json:"firstAckSeconds"` // exec on an empty directory to the first ack
	CreateSecs   float64 `json:"createSeconds"`   // 100 topics of 1,000, and one record in each
	IdleRSSMiB   float64 `json:"idleRSSMiB"`
	WrittenGB    float64 `json:"writtenGB"`
	RestartSecs  float64 `json:"restartSeconds"` // exec to ready, after kill -9
}

// runScale measures one target at 100,000 partitions and 10 GB.
func runScale(ctx context.Context, t Target, base string, log io.Writer) (sc Scale, err error) {
	dir, err := freshDir(base, "first")
	if err != nil {
		return sc, err
	}
	ack, err := firstAck(ctx, t, dir)
	if err != nil {
		return sc, err
	}
	sc.FirstAckSecs = ack.Seconds()
	if dir, err = freshDir(base, "scale"); err != nil {
		return sc, err
	}
	r, err := t.Start(ctx, dir)
	if err != nil {
		return sc, err
	}
	topics := Topics{Prefix: "scale", Count: 100, Partitions: 1000}
	touch := ProduceLoad{Topics: topics, RecordBytes: 10, Records: 1, Parts: 1000, Conns: 4, InFlight: 4, Acks: -1, Once: true}
	begun := time.Now()
	err = createTopics(ctx, r.Addr, topics, nil)
	if err == nil {
		_, err = Produce(ctx, r.Addr, touch)
	}
	if err != nil {
		return sc, errors.Join(err, r.Kill())
	}
	sc.CreateSecs = time.Since(begun).Seconds()
	fmt.Fprintf(log, "scale    first ack %.2f s, 100,000 partitions created and written in %.2f s\n", sc.FirstAckSecs, sc.CreateSecs)
	if sc, err = idleAndRestart(ctx, t, r, dir, topics, sc); err == nil {
		fmt.Fprintf(log, "  idle %.0f MiB, restart after kill -9 with %.1f GB in %.2f s\n", sc.IdleRSSMiB, sc.WrittenGB, sc.RestartSecs)
	}
	return sc, err
}

// idleAndRestart stops the broker and starts it again to see its idle memory, fills it and kills it.
func idleAndRestart(ctx context.Context, t Target, r *Running, dir string, topics Topics, sc Scale) (Scale, error) {
	if err := r.Stop(); err != nil {
		return sc, err
	}
	r, err := t.Start(ctx, dir)
	if err != nil {
		return sc, err
	}
	u, err := r.Usage()
	if err != nil {
		return sc, errors.Join(err, r.Kill())
	}
	sc.IdleRSSMiB = float64(u.RSS) / (1 << 20)
	fill := ProduceLoad{Topics: topics, RecordBytes: 1024, Records: 100, Parts: 16, Conns: 4, InFlight: 4, Acks: -1, Once: true}
	p, err := Produce(ctx, r.Addr, fill)
	if err = errors.Join(err, r.Kill()); err != nil {
		return sc, err
	}
	sc.WrittenGB = float64(p.AllBytes) / 1e9
	if r, err = t.Start(ctx, dir); err != nil {
		return sc, err
	}
	sc.RestartSecs = r.Started.Seconds()
	return sc, r.Stop()
}
