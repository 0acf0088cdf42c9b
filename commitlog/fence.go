package commitlog

import (
	"errors"
	"fmt"
)

// ErrFenced: the log was sealed, or reopened, by somebody else. What was not committed never will be, and the log takes
// nothing more: it is poisoned, but its disk is sound, and opening it again mends it. Kafka: NOT_LEADER_OR_FOLLOWER.
var ErrFenced = errors.New("log fenced")

// Fence ends the log because cause says that its epoch has ended: every append that waits fails with ErrFenced.
// A registrar that learns the same from a witness makes its error wrap ErrFenced.
func (l *Log) Fence(cause error) {
	if !errors.Is(cause, ErrFenced) {
		cause = fmt.Errorf("%w: %w", ErrFenced, cause)
	}
	l.setPoison(cause)
}

// Poisoned returns a channel that is closed when the log is dead: Err says why.
func (l *Log) Poisoned() <-chan struct{} { return l.poisoned }

// Err is why the log is dead, nil while it is not. It wraps ErrPoisoned, and ErrFenced when that is the reason.
func (l *Log) Err() error { return l.poison() }
