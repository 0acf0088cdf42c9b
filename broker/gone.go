package broker

import (
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// gone collects partitions of deleted topics until they are dropped from the logs.
type gone struct {
	mu   sync.Mutex
	list []ident.Partition
	wake chan struct{} // holds one token: the list is not empty
}

func (g *gone) add(ps []*partition) {
	g.mu.Lock()
	for _, p := range ps {
		g.list = append(g.list, p.id())
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gone) take() []ident.Partition {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.list
	g.list = nil
	return list
}
