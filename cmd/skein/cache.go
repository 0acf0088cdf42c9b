package main

import (
	"context"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/procfs"

	"github.com/skeinmq/skein/commitlog"
)

// What recent records may take of the memory that a process may use (ADR 24): at least an eighth, whatever else goes on; up to half, as
// long as a quarter of all, or cacheSpare if that is more, is left for everything else.
const (
	cacheLeastPart = 8
	cacheMostPart  = 2
	cacheSparePart = 4
	cacheSpare     = 768 << 20 // bytes: requests and answers under way, and some room
	cacheLeast     = 256 << 20 // bytes for each log
	cacheEach      = time.Second
	cacheStep      = 4 // the share of what is to spare that is taken at once is one in this: others may want it, too
)

// memoryNow is how the memory that this process may use is used.
type memoryNow struct {
	total     int64 // 0: that cannot be told
	available int64 // that nobody uses, or for something that the kernel gives up at once
}

// leastCache is what each of some logs keeps of recent blocks at least: what was configured or, if that is negative, its share of an
// eighth of the memory.
func leastCache(configured, total int64, logs int) int64 {
	if configured >= 0 {
		return configured
	}
	return max(cacheLeast, total/cacheLeastPart/int64(logs))
}

// cacheTarget is what each of some logs may keep of recent blocks, if all of them take used bytes now.
func cacheTarget(m memoryNow, used int64, logs int) int64 {
	room := m.available - max(m.total/cacheSparePart, cacheSpare)
	if room > 0 {
		room /= cacheStep
	}
	return max(leastCache(-1, m.total, logs), min(used+room, m.total/cacheMostPart)/int64(logs))
}

// followMemory has logs use the memory for recent blocks that nobody else wants, until ctx ends.
func followMemory(ctx context.Context, logs []*commitlog.Log, now func() (memoryNow, error)) {
	tick := time.NewTicker(cacheEach)
	defer tick.Stop()
	for {
		if m, err := now(); err == nil { // else what was told last stays: where it cannot be told at all that is the least
			var used int64
			for _, l := range logs {
				used += l.CacheAllocated()
			}
			for _, l := range logs {
				l.SetCacheBytes(cacheTarget(m, used, len(logs)))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// processMemory is the bytes that this process may use: the machine's, or its control group's limit if that is less; 0 where that cannot
// be told.
func processMemory() int64 {
	total, err := memlimit.FromSystem()
	if err != nil {
		total = 0
	}
	if limit, err := memlimit.FromCgroup(); err == nil && (total == 0 || limit < total) {
		total = limit
	}
	return int64(min(total, 1<<50))
}

// readMemory asks the kernel. A control group's limit is taken to be for this process alone, as in a pod.
func readMemory() (memoryNow, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return memoryNow{}, err
	}
	machine, err := fs.Meminfo()
	if err != nil {
		return memoryNow{}, err
	}
	self, err := fs.Self()
	if err != nil {
		return memoryNow{}, err
	}
	stat, err := self.Stat()
	if err != nil {
		return memoryNow{}, err
	}
	m := memoryNow{total: processMemory()}
	m.available = m.total - int64(stat.ResidentMemory())
	if machine.MemAvailableBytes != nil {
		m.available = min(m.available, int64(*machine.MemAvailableBytes))
	}
	return m, nil
}
