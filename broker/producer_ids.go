package broker

import (
	"context"
	"sync"
)

// ProducerIDBlocks allocates producer ids by the block, durably: no id is ever in two blocks. The controller is one.
type ProducerIDBlocks interface {
	ProducerIDs(ctx context.Context) (first int64, count int, err error)
}

// IDsFrom hands out the ids of blocks one by one. What is left of a block when the process ends is never used.
func IDsFrom(blocks ProducerIDBlocks) ProducerIDs { return &blockIDs{blocks: blocks} }

type blockIDs struct {
	blocks ProducerIDBlocks

	mu        sync.Mutex
	next, end int64
	fetching  chan struct{} // closed when the fetch of the next block is over; nil: none under way
}

// NextProducerID implements ProducerIDs. Of several callers that find the block used up, one fetches and the others wait.
func (ids *blockIDs) NextProducerID(ctx context.Context) (int64, error) {
	for {
		ids.mu.Lock()
		if ids.next < ids.end {
			id := ids.next
			ids.next++
			ids.mu.Unlock()
			return id, nil
		}
		wait := ids.fetching
		if wait == nil {
			ids.fetching = make(chan struct{})
			ids.mu.Unlock()
			if err := ids.fetch(ctx); err != nil {
				return 0, err
			}
			continue
		}
		ids.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (ids *blockIDs) fetch(ctx context.Context) error {
	first, count, err := ids.blocks.ProducerIDs(ctx)
	ids.mu.Lock()
	defer ids.mu.Unlock()
	close(ids.fetching)
	ids.fetching = nil
	if err == nil {
		ids.next, ids.end = first, first+int64(count)
	}
	return err
}
