package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestBufferClasses(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 5120, 5121, 8191, 8192, 8193, 1 << 20, 1<<20 + 100, 1<<24 - 1, 1 << 24} {
		class, size := bufferClass(n)
		if size < n || class < 0 || class >= bufferClasses {
			t.Errorf("bufferClass(%d) = %d, %d", n, class, size)
			continue
		}
		if got := classSize(class); got != size {
			t.Errorf("classSize(%d) = %d, want %d", class, got, size)
		}
		if n > 4096 && size > n+n/4 {
			t.Errorf("bufferClass(%d): size %d wastes more than a quarter", n, size)
		}
		buf := getBuffer(n)
		if len(buf.b) != n || cap(buf.b) != size {
			t.Errorf("getBuffer(%d): len %d cap %d", n, len(buf.b), cap(buf.b))
		}
		buf.release()
	}
	if class, size := bufferClass(1<<24 + 1); class != -1 || size != 1<<24+1 {
		t.Errorf("a huge buffer has class %d, size %d", class, size)
	}
}

func TestMemoryServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{limit: 100}
		if n, err := m.reserve(t.Context(), 60); n != 60 || err != nil {
			t.Fatal(n, err)
		}
		var order []int
		done := make(chan struct{})
		go func() {
			m.reserve(t.Context(), 90)
			order = append(order, 1)
			m.release(90)
			close(done)
		}()
		synctest.Wait()
		if m.try(10) {
			t.Error("a small request overtook a waiting large one")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		left := make(chan error)
		go func() {
			_, err := m.reserve(ctx, 10)
			left <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-left; !errors.Is(err, gone) {
			t.Error(err)
		}
		m.release(60)
		<-done
		if used, waiting := m.used.Load(), m.waiting.Load(); used != 0 || waiting != 0 {
			t.Errorf("used %d, waiting %d at the end", used, waiting)
		}
		if n, err := m.reserve(t.Context(), 1000); n != 100 || err != nil {
			t.Errorf("more than everything: %d, %v", n, err)
		}
	})
}
