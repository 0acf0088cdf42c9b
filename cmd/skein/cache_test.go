package main

import "testing"

func TestCacheBytes(t *testing.T) {
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
		if got := cacheBytes(tc.configured, tc.memory, tc.logs); got != tc.want {
			t.Errorf("%d configured, %d there, %d logs: %d, want %d", tc.configured, tc.memory, tc.logs, got, tc.want)
		}
	}
	if got := processMemory(); got < 64<<20 {
		t.Errorf("this process may use %d bytes", got)
	}
}
