package failover

import (
	"context"
	"sync"
	"time"
)

// Goroutines runs everything at the same time.
type Goroutines struct{}

// Each implements Fan.
func (Goroutines) Each(ctx context.Context, n int, f func(ctx context.Context, i int)) {
	if n == 1 {
		f(ctx, 0)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range n {
		wg.Go(func() { f(ctx, i) })
	}
}

// First implements Fan.
func (Goroutines) First(ctx context.Context, n int, f func(ctx context.Context, i int) bool) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	first := -1
	for i := range n {
		wg.Go(func() {
			if f(ctx, i) {
				once.Do(func() { first = i; cancel() })
			}
		})
	}
	wg.Wait()
	return first
}

// Serial does one thing after the other: for simulations and tests.
type Serial struct{}

// Each implements Fan.
func (Serial) Each(ctx context.Context, n int, f func(ctx context.Context, i int)) {
	for i := range n {
		f(ctx, i)
	}
}

// First implements Fan.
func (Serial) First(ctx context.Context, n int, f func(ctx context.Context, i int) bool) int {
	for i := range n {
		if f(ctx, i) {
			return i
		}
	}
	return -1
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
