package balance

import (
	"context"
	"fmt"
	"time"
)

// sample is what an owner said of a group's partitions, none if it did not answer.
type sample struct {
	parts []HotPartition
	until time.Time // it is good
}

const (
	// sampleFor is how long an answer is good: about as long as a smooth load remembers.
	sampleFor = time.Minute
	// sampleAgain is after how long an owner that did not answer is asked again: the group may just have moved.
	sampleAgain = 5 * time.Second
	// splitTimeout bounds a split: it freezes two groups, and writes into one log and the map.
	splitTimeout = 10 * time.Second
)

// sample asks an owner which partitions of a group are hot.
func (l *Loop) sample(ctx context.Context, a Ask) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	parts, err := l.cfg.Owners.Hottest(ctx, a.Owner, a.Group)
	good := sampleFor
	if err != nil {
		good = sampleAgain
		l.log.Info("hot partitions are not known", "group", a.Group, "broker", a.Owner, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for g, s := range l.samples {
		if now.After(s.until) {
			delete(l.samples, g)
		}
	}
	l.samples[a.Group] = sample{parts: parts, until: now.Add(good)}
}

// split has an owner split a partition off. The next plan moves what can be moved then.
func (l *Loop) split(ctx context.Context, s Split) {
	begun := time.Now()
	bounded, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	err := l.cfg.Owners.Split(bounded, s.Broker, s.Topic, s.Partition, s.To)
	if ctx.Err() != nil {
		return // the next active controller sees
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	done := Done{At: now, Move: Move{
		Group: s.To, FromBroker: s.Broker, ToBroker: s.Broker, Cause: CauseSplit,
		Why: fmt.Sprintf("%s:%d came from group %d: %s", s.Topic, s.Partition, s.From, s.Why),
	}}
	if l.planner != nil {
		l.planner.SplitDone(s, err == nil, now)
	}
	delete(l.samples, s.From)
	delete(l.samples, s.To)
	if err != nil {
		done.Error = err.Error()
		l.metrics.failures.Inc()
	} else {
		l.loads.Shift(s.From, s.To, s.share, now) // at once, so that nothing is planned on what was
		l.metrics.split.Inc()
	}
	l.note(done)
	l.log.Info("partition split off", "topic", s.Topic, "partition", s.Partition, "from", s.From, "to", s.To, "broker", s.Broker, "share", s.share,
		"ms", float64(now.Sub(begun).Microseconds())/1000, "error", err)
}
