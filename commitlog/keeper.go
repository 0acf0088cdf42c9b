package commitlog

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/skeinmq/skein/internal/ident"
)

// keeper prepares log files ahead, so that a roll costs the sequencer nothing and the
// append path cannot meet a full disk.
type keeper struct {
	l    *Log
	want int
	wake chan struct{}

	mu    sync.Mutex
	files []*logFile     // ready, in order
	next  ident.Position // first position of the file to prepare next
}

// take hands out the next ready file, or nil.
func (k *keeper) take() *logFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.files) == 0 {
		return nil
	}
	f := k.files[0]
	k.files = k.files[1:]
	k.poke()
	return f
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// missing says which file to prepare, if any.
func (k *keeper) missing() (ident.Position, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next, len(k.files) < k.want
}

func (k *keeper) put(f *logFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files = append(k.files, f)
	k.next = f.limit()
}

// run prepares files until stop is closed. A full disk is waited out: the level says
// so to producers long before.
func (k *keeper) run(stop <-chan struct{}) {
	for {
		first, want := k.missing()
		if want {
			f, err := k.l.makeFile(first)
			switch {
			case err == nil:
				k.put(f)
				k.l.inbox.poke()
				continue
			case !errors.Is(err, syscall.ENOSPC):
				k.l.setPoison(fmt.Errorf("prepare log file: %w", err))
				return
			}
			k.l.log.Warn("no room for the next log file", "log", k.l.id, "error", err)
		}
		select {
		case <-stop:
			return
		case <-k.wake:
		}
	}
}

func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, f := range k.files {
		errs = append(errs, f.closeHandles())
	}
	k.files = nil
	return errors.Join(errs...)
}
