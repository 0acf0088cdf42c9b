package host

import (
	"context"
	"testing"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// awayLog is a log of broker 2, which is away, with the only group open in it and a partition that lives there.
func awayLog(t *testing.T) (*queuemapper.Store, *queuemapper.Log) {
	t.Helper()
	store := storeOf(t, 1)
	l, err := store.ReopenLog(t.Context(), ident.Log{9}, 2, 1, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	pub := queuemapper.Publication{Group: store.Map().Group(0), Target: l, Frame: ident.Frame{Epoch: l.Epoch, Position: 4096}, Ceiling: 100}
	if err := store.Publish(t.Context(), []queuemapper.Publication{pub})[0]; err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateTopic(t.Context(), queuemapper.NewTopic{Name: "t", Placements: []ident.Group{0}}); err != nil {
		t.Fatal(err)
	}
	return store, l
}

// TestGiveUpOfOneThatReturns: while an operator waits for a log to be sealed, its host takes it into service, and is given up once
// more. The operator's word was about the owner before: nobody knows that this one does not acknowledge any more.
func TestGiveUpOfOneThatReturns(t *testing.T) {
	store, away := awayLog(t)
	waits := 0
	h, _ := hostOf(t, store, Config{ID: 1, Pause: func(ctx context.Context, _ time.Duration) error {
		if waits++; waits > 1 {
			return context.Cause(ctx)
		}
		back, err := store.ReopenLog(ctx, away.ID, 2, 2, away.Epoch, nil)
		if err == nil {
			_, err = store.SealLog(ctx, back)
		}
		return err
	}}, nil)
	if err := h.GiveUp(t.Context(), away.ID, time.Minute); err == nil {
		t.Error("a log was given up that was in service since the operator has said that it is lost")
	}
	if cur := store.Map().Group(0).Current(); cur.Log != away.ID || waits == 0 {
		t.Errorf("its group is open in log %v, after %d waits", cur.Log, waits)
	}
}

// TestPassLostKeepsLogStart: until its record is gone a log may come back with what it holds. The next generation at the ceiling does
// not begin behind that.
func TestPassLostKeepsLogStart(t *testing.T) {
	store, away := awayLog(t)
	h, mine := hostOf(t, store, Config{ID: 1}, nil)
	sealed, err := store.SealLog(t.Context(), away, store.Map().Log(mine))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.passLost(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	table, err := h.Hosted(mine).Log.(*commitlog.Log).Table(t.Context())
	if err != nil || len(table.Generations) != 1 || len(table.Generations[0].Partitions) != 1 {
		t.Fatalf("the table is %+v, %v", table, err)
	}
	if p := table.Generations[0].Partitions[0]; p.End != 100 || p.LogStart != 0 {
		t.Errorf("the next generation begins at %d with log start %d, want 100 and 0", p.End, p.LogStart)
	}
	if err := store.GiveUpLog(t.Context(), away.ID, sealed); err != nil {
		t.Fatal(err)
	}
	p := ident.Partition{Topic: store.Map().Topic("t").ID}
	if lost := store.Map().Group(0).Lost(0, p); len(lost) != 1 || lost[0] != (queuemapper.Range{From: 0, To: 100}) {
		t.Errorf("%v is marked as lost", lost)
	}
}
