package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/skeinmq/skein/commitlog"
)

func TestLeastCache(t *testing.T) {
	for _, tc := range []struct {
		configured, memory int64
		logs               int
		want               int64
	}{
		{-1, 64 << 30, 1, 8 << 30},
		{-1, 64 << 30, 4, 2 << 30},
		{-1, 1 << 30, 1, 256 << 20},
		{-1, 8 << 30, 8, 256 << 20},
		{-1, 0, 1, 256 << 20},
		{1 << 20, 64 << 30, 4, 1 << 20},
	} {
		if got := leastCache(tc.configured, tc.memory, tc.logs); got != tc.want {
			t.Errorf("%d configured, %d there, %d logs: %d, want %d", tc.configured, tc.memory, tc.logs, got, tc.want)
		}
	}
}

func TestCacheTarget(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		about            string
		total, available int64
		used             int64
		logs             int
		want             int64
	}{
		{"an idle machine: the least", 16 * gib, 15 * gib, 0, 1, 11 * gib / 4},
		{"two logs share it", 16 * gib, 15 * gib, 0, 2, 11 * gib / 8},
		{"it grows on", 16 * gib, 12 * gib, 3 * gib, 1, 5 * gib},
		{"to half", 16 * gib, 8 * gib, 8 * gib, 1, 8 * gib},
		{"and stays when nothing is to spare", 16 * gib, 4 * gib, 7 * gib, 1, 7 * gib},
		{"others want memory: all of that at once", 16 * gib, 1 * gib, 8 * gib, 1, 5 * gib},
		{"but never below an eighth", 16 * gib, 0, 4 * gib, 1, 2 * gib},
		{"not even if it is out of reach", 16 * gib, -3 * gib, 4 * gib, 1, 2 * gib},
		{"a small pod has nothing to spare", 1 * gib, gib * 3 / 4, 100 << 20, 1, 256 << 20},
		{"nothing is known", 0, 0, 100 << 20, 1, 256 << 20},
	} {
		got := cacheTarget(memoryNow{total: tc.total, available: tc.available}, tc.used, tc.logs)
		if got != tc.want {
			t.Errorf("%s: %d MiB, want %d", tc.about, got>>20, tc.want>>20)
		}
	}
}

func TestReadMemory(t *testing.T) {
	m, err := readMemory()
	if err != nil {
		t.Skip(err) // not Linux: the least is kept
	}
	if m.total < 64<<20 || m.available <= 0 || m.available >= m.total {
		t.Errorf("%d bytes in all, %d available", m.total, m.available)
	}
}

// TestFollowMemory: what a log may keep goes by what is available, and stays where that cannot be told.
func TestFollowMemory(t *testing.T) {
	l, err := commitlog.Open(t.Context(), commitlog.Config{Dir: t.TempDir(), ClusterID: "c", FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		type answer struct {
			memoryNow
			err error
		}
		answers := make(chan answer)
		go followMemory(ctx, []*commitlog.Log{l}, func() (memoryNow, error) {
			select {
			case a := <-answers:
				return a.memoryNow, a.err
			case <-ctx.Done():
				return memoryNow{}, ctx.Err()
			}
		})
		for _, step := range []struct {
			available int64
			trouble   error
			want      int64
		}{
			{15 << 30, nil, 11 << 28},
			{15 << 30, errors.New("not there"), 11 << 28},
			{4 << 30, nil, 2 << 30},
			{12 << 30, nil, 2 << 30},
			{13 << 30, nil, 9 << 28},
		} {
			answers <- answer{memoryNow{total: 16 << 30, available: step.available}, step.trouble}
			synctest.Wait()
			if got := l.Stats().CacheLimit; got != step.want {
				t.Errorf("%d MiB available, %v: the limit is %d MiB, want %d", step.available>>20, step.trouble, got>>20, step.want>>20)
			}
		}
	})
}
