package main

import "github.com/KimMachineGun/automemlimit/memlimit"

const (
	cachePart  = 8         // of the memory that there is goes to recent blocks
	cacheLeast = 256 << 20 // bytes for each log
)

// cacheBytes is how much of recent blocks each of some logs keeps in memory: what was configured, or, if that is negative, its share of
// an eighth of the memory of the machine or of the process's control group, whichever is less.
func cacheBytes(configured, memory int64, logs int) int64 {
	if configured >= 0 {
		return configured
	}
	return max(cacheLeast, memory/cachePart/int64(logs))
}

// processMemory is the bytes that this process may use; 0 where that cannot be told.
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
