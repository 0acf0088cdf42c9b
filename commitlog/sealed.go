package commitlog

import (
	"context"

	"github.com/skeinmq/skein/internal/ident"
)

// sealedIndex is the open index of a sealed file.
type sealedIndex struct{}

func (q *Queue) sealedPlaces(ctx context.Context, off ident.Offset, yield func(*logFile, *place) bool) (bool, error) {
	return false, nil
}

func (q *Queue) sealedHas(off ident.Offset) bool { return false }

// sealer writes what is derived, off the append path.
type sealer struct{}

func (*sealer) queue(*logFile) {}

// release gives up what the log keeps for a dropped queue.
func (l *Log) release(q *Queue) {}

// forget gives up a generation that the map never named.
func (l *Log) forget(r *run) {
	l.table.close(r, runGone)
	for _, q := range r.sorted() {
		q.gone.Store(true)
		l.release(q)
	}
}
