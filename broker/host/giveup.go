package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// ErrNotSealed: a log cannot be given up as yet.
var ErrNotSealed = errors.New("it is not sealed: its broker was not given up as yet, or no other log takes its groups")

// lookAgain is how often GiveUp looks at the map while it waits.
const lookAgain = 20 * time.Millisecond

// GiveUp gives up, on an operator's word (O22), a log whose disk is gone for good: once it is sealed and its groups go on elsewhere,
// its record is deleted, and then what lay there is noted as lost. The active controller has so much patience to open its groups
// from what witnesses know; those that nobody can tell about are opened here at their ceilings. Whatever it is interrupted by, it
// may be asked again.
func (h *Host) GiveUp(ctx context.Context, id ident.Log, patience time.Duration) error {
	l, err := h.awaitFailover(ctx, id, patience)
	if err != nil {
		return err
	}
	if l != nil {
		if open, _, _ := h.store.Map().Holds(id); open > 0 && !plants.lostOpen {
			if err := h.passLost(ctx, l); err != nil {
				return fmt.Errorf("open the groups of log %s at their ceilings: %w", id, err)
			}
		}
	}
	return h.store.GiveUpLog(ctx, id, l)
}

// awaitFailover waits until a log is sealed and, if witnesses know where its groups end, they are open elsewhere. It returns the
// log's record, nil if there is none. It refuses a log that its host takes into service meanwhile: the disk is there.
func (h *Host) awaitFailover(ctx context.Context, id ident.Log, patience time.Duration) (*queuemapper.Log, error) {
	var said *queuemapper.Log // what the operator's word is about
	for waited := time.Duration(0); ; waited += lookAgain {
		m := h.store.Map()
		l := m.Log(id)
		if l == nil {
			return nil, nil
		}
		if said == nil {
			said = l
		}
		if !plants.oldWord && (l.Epoch != said.Epoch || m.InService(l)) { // O22: who has it now may acknowledge, and nobody has said that he is dead
			return nil, fmt.Errorf("log %s is not lost: broker %d has taken it into service at epoch %d", id, l.Host, l.Epoch)
		}
		open, _, _ := m.Holds(id)
		switch sealed := l.State == queuemapper.LogSealed; {
		case sealed && (open == 0 || forgotten(m, l) || waited >= patience):
			return l, nil
		case waited >= patience:
			return nil, fmt.Errorf("log %s: %w", id, ErrNotSealed)
		}
		if err := h.cfg.Pause(ctx, lookAgain); err != nil {
			return nil, err
		}
	}
}

// forgotten reports whether every witness of a log is another incarnation now: nobody can tell where its groups end (O6).
func forgotten(m *queuemapper.Map, l *queuemapper.Log) bool {
	return !slices.ContainsFunc(l.Witnesses, func(w queuemapper.Witness) bool {
		now := m.Broker(w.Broker)
		return now == nil || now.Incarnation == w.Incarnation
	})
}
