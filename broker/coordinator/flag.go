package coordinator

import "sync/atomic"

// flag is a bool that other goroutines may read.
type flag struct{ v atomic.Bool }

func (f *flag) set(v bool) { f.v.Store(v) }

func (f *flag) get() bool { return f.v.Load() }
