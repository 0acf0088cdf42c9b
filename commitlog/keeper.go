package commitlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// keeper holds the next log file ready with its header and name, so that a roll costs the
// sequencer nothing. The pool behind it keeps the space.
type keeper struct {
	l    *Log
	wake waker

	full atomic.Bool // the last try found no room

	mu   sync.Mutex
	file *logFile       // ready; nil: none
	next ident.Position // first position of the file after it
}

// fullRetry is how often a full disk is asked again.
const fullRetry = time.Second

// take hands out the ready file, or nil.
func (k *keeper) take() *logFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.file
	k.file = nil
	k.wake.poke()
	return f
}

// missing says which file to get ready, if any.
func (k *keeper) missing() (ident.Position, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next, k.file == nil
}

func (k *keeper) put(f *logFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file, k.next = f, f.limit()
}

// run gets files ready until ctx ends. A full disk is waited out: the level says so to
// producers long before.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if first, want := k.missing(); want {
			f, err := k.l.takeFile(ctx, first)
			switch {
			case err == nil:
				k.full.Store(false)
				k.put(f)
				k.l.inbox.wake.poke()
			case ctx.Err() != nil:
				return
			case errors.Is(err, ErrFull):
				k.full.Store(true)
				k.l.inbox.wake.poke()
				k.l.log.Warn("no room for the next log file", "log", k.l.id, "error", err)
				retry = time.After(fullRetry)
			default:
				k.l.setPoison(fmt.Errorf("prepare log file: %w", err))
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-retry:
		}
	}
}

func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == nil {
		return nil
	}
	err := k.file.closeHandles()
	k.file = nil
	return err
}
