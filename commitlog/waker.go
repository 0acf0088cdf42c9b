package commitlog

// waker wakes one goroutine that waits for something to do. What happens before it looks is one wake-up.
type waker chan struct{}

func newWaker() waker { return make(waker, 1) }

func (w waker) poke() {
	select {
	case w <- struct{}{}:
	default:
	}
}
