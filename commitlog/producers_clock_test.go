package commitlog

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// TestRetryAcrossClocks: a retry is found to be one whatever clocks said when the batch came: the record's timestamps (of
// 1970 here), those of the process before, those of another broker. What is silent for longer is forgotten all the same.
func TestRetryAcrossClocks(t *testing.T) {
	fs := vfs.NewMem()
	var at atomic.Int64 // the log reads it while it runs
	at.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	open := func() *running {
		cfg := testConfig(fs, "data")
		cfg.Now = func() time.Time { return time.Unix(0, at.Load()) }
		return start(t, cfg)
	}
	retry := func(r *running, seq int32) error {
		t.Helper()
		return r.append(batchOf(r.queue(1, 0), producerBatch(1, 10, 8, 0, seq)))[0].Err
	}
	r := open()
	r.begin()
	for i := range int32(2) {
		if err := retry(r, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, set := range []time.Duration{49 * time.Hour, -500 * time.Hour, 1000 * time.Hour} {
		r.stop()
		at.Add(int64(set))
		r = open()
		r.begin()
		if err := retry(r, 1); !errors.Is(err, ErrDuplicate) {
			t.Errorf("clock set by %v: retry: %v, want ErrDuplicate", set, err)
		}
	}
	defer func() { r.stop() }()
	old := r.queue(1, 0)
	states := r.freezeNow(1)
	r.openGroup(1, 2, states)
	if err := r.Seal(t.Context(), MapGeneration{Generation: old.Generation(), Ends: map[ident.Partition]ident.Offset{old.Partition(): states[0].End}}); err != nil {
		t.Fatal(err)
	}
	if err := retry(r, 1); !errors.Is(err, ErrDuplicate) {
		t.Errorf("at another owner: retry: %v, want ErrDuplicate", err)
	}
	at.Add(int64(2 * grace)) // not yet a day, but of its own time only 1970 is known
	if err := retry(r, 1); errors.Is(err, ErrDuplicate) {
		t.Error("a producer that was silent for a day and more was not forgotten")
	}
}
